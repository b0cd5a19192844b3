"""From an HTTP request to what is asked: the task, who asks, and the body that the model will see.

The task's system prompt goes in front of a chat without a system (or developer) message: the
same for candidate, stable and base, so that arms differ by their weights alone; a client that
brings its own keeps it on every arm. Text completions are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ratchet.schemas.events import Request
from ratchet.schemas.ids import ADAPTER_NAME, BASE, hash_user
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.errors import Refused, bad_field, first_problem, model_not_found

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
_NOT_PARAMS = frozenset(
    ("model", "messages", "prompt", "tools", "response_format", "user", "metadata", "stream", "stream_options")
)
_MAX_ID = 256
COPY_PRIORITY = 1_000_000
"""vLLM serves lower numbers first, and a request that names none has 0: copies come after every user's."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One accepted request to an inference endpoint."""

    path: str
    tenant: str
    task: str
    pinned: str | None
    body: dict[str, Any]
    """What goes upstream, less the model's name."""
    request: Request
    """What is logged: what the model sees."""
    conversation_id: str | None
    user: str | None
    stream: bool
    size: int
    """Bytes of the body as it came."""
    wants_usage: bool
    """Whether the client itself asked for the stream's usage chunk."""
    tags: dict[str, str]


def read_ask(
    path: str,
    headers: Mapping[bytes, bytes],
    value: dict[str, Any],
    size: int,
    tasks: Mapping[str, TaskPolicy],
    tenant: str,
) -> Ask:
    """Read a decoded body and its headers.

    Args:
        path: the endpoint.
        headers: the request's headers.
        value: its body.
        size: the body's bytes.
        tasks: the declared tasks.
        tenant: whose traffic it is.

    Raises:
        Refused: 404 for an unknown model, 400 naming the field that is missing or wrong.
    """
    task, pinned = _resolve(value.get("model"), headers.get(b"x-ratchet-adapter"), tasks)
    stream, wants_usage, options = _streaming(value)
    metadata = _metadata(value.get("metadata"))
    conversation = _short(headers, b"x-ratchet-conversation-id") or metadata.pop("conversation_id", None)
    name = _short(headers, b"x-ratchet-user") or value.get("user")
    if name is not None and not isinstance(name, str):
        raise bad_field("user", "allowed: a text")
    user = hash_user(name) if name else None
    body = {key: item for key, item in value.items() if key not in ("user", "stream", "stream_options")}
    if user:
        body["user"] = user
    if stream:
        body["stream"] = True
        body["stream_options"] = {**options, "include_usage": True}
    _priority(value.get("priority"))
    content = "messages" if path == CHAT else "prompt"
    if value.get(content) is None:
        raise bad_field(content, "missing")
    if path == CHAT:
        body["messages"] = _messages(value["messages"], tasks[task].system_prompt)
    else:
        body["prompt"] = _prompt(value["prompt"])
    try:
        request = Request.model_validate(
            {
                content: body[content],
                "params": {key: item for key, item in value.items() if key not in _NOT_PARAMS},
                "tools": value.get("tools"),
                "response_format": value.get("response_format"),
            }
        )
    except ValidationError as error:
        raise bad_field(*first_problem(error)) from None
    return Ask(path, tenant, task, pinned, body, request, conversation, user, stream, size, wants_usage, metadata)


def _resolve(model: object, header: bytes | None, tasks: Mapping[str, TaskPolicy]) -> tuple[str, str | None]:
    """The task, and the adapter that the model's name or the header pins."""
    if model is None:
        raise bad_field("model", "missing")
    if not isinstance(model, str):
        raise bad_field("model", "allowed: a text")
    match = ADAPTER_NAME.match(model)
    task = match["task"] if match else model
    if task not in tasks:
        raise model_not_found(model)
    if header is None:
        return task, model if match else None
    pinned = header.decode("latin-1")
    match = ADAPTER_NAME.match(pinned)
    if pinned != BASE and (match is None or match["task"] != task):
        raise bad_field("x-ratchet-adapter", f"{pinned!r} names no adapter of {task!r}; allowed: 'base' or {task}@vN-…")
    return task, pinned


def _streaming(value: dict[str, Any]) -> tuple[bool, bool, dict[str, Any]]:
    stream, options = value.get("stream"), value.get("stream_options")
    if stream not in (None, True, False) or (isinstance(stream, int) and not isinstance(stream, bool)):
        raise bad_field("stream", "allowed: true or false")
    if options is None:
        return bool(stream), False, {}
    if not isinstance(options, dict):
        raise bad_field("stream_options", "allowed: an object")
    if not stream:
        raise bad_field("stream_options", "only goes with stream: true")
    return True, options.get("include_usage") is True, options


def _priority(value: object) -> None:
    """A client may put its request behind others', for a batch, but never in front of another tenant's."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < COPY_PRIORITY):
        return
    raise bad_field(
        "priority", f"{value!r}; allowed: a whole number from 0 (the default, first) to {COPY_PRIORITY - 1}"
    )


def _metadata(value: object) -> dict[str, str]:
    """OpenAI's ``metadata`` becomes the event's tags; ``conversation_id`` in it is the conversation."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_field("metadata", "allowed: an object of texts")
    for key, item in value.items():
        if not isinstance(item, str) or len(item) > 1024 or len(key) > 128:
            raise bad_field(f"metadata.{key[:128]}", "allowed: a text of at most 1024 characters under a key of 128")
    if len(value.get("conversation_id", "")) > _MAX_ID:
        raise bad_field("metadata.conversation_id", f"allowed: at most {_MAX_ID} characters")
    return dict(value)


def _short(headers: Mapping[bytes, bytes], name: bytes) -> str | None:
    raw = headers.get(name)
    if not raw:
        return None
    if len(raw) > _MAX_ID:
        raise bad_field(name.decode(), f"allowed: at most {_MAX_ID} bytes")
    return raw.decode("utf-8", "replace")


def _messages(messages: object, system_prompt: str | None) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "allowed: a list of at least one message")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_field(f"messages.{index}", "allowed: an object")
        if not isinstance(message.get("role"), str):
            raise bad_field(f"messages.{index}.role", "missing" if message.get("role") is None else "allowed: a text")
    if system_prompt and not any(message["role"] in ("system", "developer") for message in messages):
        return [{"role": "system", "content": system_prompt}, *messages]
    return messages


def _prompt(prompt: object) -> str | list[str]:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(item, str) for item in prompt):
        return prompt
    # Token ids would be logged as numbers that no judge, pair or dataset could read.
    raise bad_field("prompt", "allowed: a text or a list of texts (lists of token ids are not taken)")


def mirrored_body(ask: Ask, *, low_priority: bool) -> dict[str, Any]:
    """The copy for the candidate: the same, but answered whole and, with ``low_priority``, after every user."""
    body = {key: item for key, item in ask.body.items() if key not in ("stream", "stream_options")}
    return body | {"priority": COPY_PRIORITY} if low_priority else body


__all__ = ["CHAT", "COMPLETIONS", "Ask", "Refused", "mirrored_body", "read_ask"]

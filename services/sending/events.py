"""An app's words as events: checked where the app says them, so that a mistake is heard there and not in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict, TypeVar

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ratchet.infra import clock
from ratchet.infra.kafka.config import MAX_RECORD_BYTES
from ratchet.schemas.decoding import parse_any
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Closed, Event, Feedback, Inference
from ratchet.schemas.explain import explain
from ratchet.schemas.feedback import feedback_problem
from ratchet.schemas.ids import BASE, hash_user

E = TypeVar("E", bound=Closed)
KINDS = ("thumb", "rating", "comment", "correction", "preference", "outcome")


class Said(TypedDict, total=False):
    """What feedback says: exactly one of the first six, and what it is about."""

    thumb: bool
    rating: float
    """From 0 to 1."""
    comment: str
    correction: str
    """The answer as it should have been."""
    preference: Literal["this", "other", "tie"]
    """Between the inference and ``compared_with``."""
    outcome: bool
    """Whether the task was completed."""
    conversation_id: str
    compared_with: str
    user: str
    """The end user; stored as a hash."""
    tags: dict[str, str]
    task: str
    """Instead of the client's own."""
    id: str
    """Instead of a new one: the same id is the same feedback."""


class Call(TypedDict, total=False):
    """One call of a model that did not go through the gateway."""

    messages: list[dict[str, Any]]
    """What was asked, as OpenAI's API has it; or ``prompt``."""
    prompt: str | list[str]
    params: dict[str, Any]
    tools: list[dict[str, Any]]
    response_format: dict[str, Any]
    content: str | None
    """What was answered; with tools, ``tool_calls``."""
    tool_calls: list[dict[str, Any]]
    finish_reason: str
    adapter: str
    """``task@vN-sha8``; without one the base model answered."""
    stage: Literal["stable", "canary", "fallback"]
    """With ``rollout_id`` what an edge of your own said of the call: `ratchet rollout export`."""
    rollout_id: str
    status: Literal["ok", "error", "timeout", "cancelled"]
    error: str
    ttft_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    stream: bool
    conversation_id: str
    user: str
    """The end user; stored as a hash."""
    tags: dict[str, str]
    task: str
    """Instead of the client's own."""
    id: str
    """Instead of a new one: the same id is the same inference."""
    at: datetime
    """When the call began; without it, the present instant."""


_ASKED = ("messages", "prompt", "params", "tools", "response_format")
_ANSWERED = ("content", "tool_calls", "finish_reason")


def inference(model: str, latency_ms: float, call: Call, task: str | None, source: str) -> Inference:
    """Make the event of a call.

    Raises:
        InvalidEvent: names the field, its value and what is allowed.
    """
    said: dict[str, Any] = {key: value for key, value in call.items() if value is not None}
    _known(said, Call)
    answered = {key: said.pop(key) for key in _ANSWERED if key in said}
    request = {key: said.pop(key) for key in _ASKED if key in said}
    if isinstance(said.get("user"), str):
        said["user"] = hash_user(said["user"])
    fixed = {"base_model": model, "latency_ms": latency_ms, "request": request, "source": source, "stage": "stable"}
    defaults = {"id": clock.new_id(), "at": clock.now(), "adapter": BASE, "status": "ok"}
    if task is not None:
        defaults["task"] = task
    return checked(Inference, defaults | fixed | said | ({"response": answered} if answered else {}))


def feedback(inference_id: str | None, said: Said, task: str | None) -> dict[str, Any]:
    """Make the fields of ``POST /v1/feedback``, with an id of its own.

    Raises:
        InvalidEvent: not exactly one kind, or a value that does not fit it.
    """
    fields: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    _known(fields, Said)
    kinds = [kind for kind in KINDS if kind in fields]
    if len(kinds) != 1:
        given = ", ".join(kinds) or "none"
        raise InvalidEvent(f"kind: {given} given; allowed: exactly one of {', '.join(KINDS)}")
    about = {"inference_id": inference_id} if inference_id is not None else {}
    named = {"task": task} if task is not None else {}
    value = fields.pop(kinds[0])
    if problem := feedback_problem(kinds[0], value, fields.get("compared_with")):
        raise InvalidEvent(problem)
    return {"id": clock.new_id()} | named | about | {"kind": kinds[0], "value": value} | fields


def whole_event(value: Inference | Feedback | Mapping[str, Any], task: str | None, source: str) -> Inference | Feedback:
    """Take an event as it is, or make one of its JSON fields; what the client knows need not be said.

    Raises:
        InvalidEvent: names the field, its value and what is allowed.
    """
    if isinstance(value, Inference | Feedback):
        return value
    fields = {"source": source} | ({"task": task} if task is not None else {}) | dict(value)
    try:
        raw = orjson.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise InvalidEvent(f"event: not JSON: {error}") from None
    event = parse_any(raw, ("inference.v1", "feedback.v1"))
    assert isinstance(event, Inference | Feedback)
    return event


def checked(kind: type[E], fields: Mapping[str, Any]) -> E:
    """Validate fields.

    Raises:
        InvalidEvent: names each bad field, its value and what is allowed.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise InvalidEvent(explain(error)) from None


def encoded(event: Event, without: frozenset[str] = frozenset()) -> bytes:
    """Write an event as JSON without absent fields.

    Raises:
        InvalidEvent: it holds something that JSON has not, or is larger than Kafka takes.
    """
    try:
        body = event.model_dump_json(by_alias=True, exclude_none=True, exclude=set(without)).encode()
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise InvalidEvent(f"event {event.id}: not JSON: {error}") from None
    if len(body) > MAX_RECORD_BYTES:
        raise InvalidEvent(f"event {event.id}: {len(body)} bytes; allowed: {MAX_RECORD_BYTES}")
    return body


def _known(fields: Mapping[str, Any], shape: type[Call] | type[Said]) -> None:
    """Refuse a misspelt name as Python does, whatever the event's own fields would allow."""
    allowed = shape.__annotations__
    for name in fields:
        if name not in allowed:
            raise TypeError(f"{name!r} is no keyword here; allowed: {', '.join(allowed)}")

"""What the model answered, read from a whole body or gathered from a stream while it is passed on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from ratchet.schemas.errors import ModelError
from ratchet.schemas.events import Response

_DONE = b"[DONE]"


@dataclass(frozen=True, slots=True)
class Answer:
    """The choices, and the usage of all of them (0 where the server does not say)."""

    response: Response | None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def _usage(value: object) -> tuple[int, int]:
    if not isinstance(value, dict):
        return 0, 0
    return max(0, int(value.get("prompt_tokens") or 0)), max(0, int(value.get("completion_tokens") or 0))


def read_answer(raw: bytes) -> Answer:
    """Read a whole answer of either endpoint.

    Raises:
        ModelError: the body is no completion, whatever its status said.
    """
    try:
        value = orjson.loads(raw)
        return Answer(_response([_choice(choice) for choice in value["choices"]]), *_usage(value.get("usage")))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(f"the model server's answer is no completion: {error!r}"[:500]) from None


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    """What is logged of one choice of a whole answer."""
    message = choice.get("message")
    content = choice.get("text") if message is None else message.get("content")
    calls = None if message is None else message.get("tool_calls") or None
    return {"content": content, "tool_calls": calls, "finish_reason": choice.get("finish_reason")}


def _response(choices: list[dict[str, Any]]) -> Response:
    """The first choice is what judges and pairs read; the others are kept beside it."""
    first, *others = choices
    further = [{key: value for key, value in other.items() if value is not None} for other in others]
    return Response(**first, further_choices=further or None)


@dataclass(slots=True)
class _Gathered:
    """The pieces of one streamed choice."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish: str | None = None

    def merge(self, call: dict[str, Any]) -> None:
        """Put one tool call's pieces together: the arguments come in parts, the rest once."""
        whole = self.calls.setdefault(call.get("index") or 0, {"type": "function", "function": {"arguments": ""}})
        for key in ("id", "type"):
            if call.get(key):
                whole[key] = call[key]
        function = call.get("function") or {}
        if function.get("name"):
            whole["function"]["name"] = function["name"]
        whole["function"]["arguments"] += function.get("arguments") or ""

    def choice(self) -> dict[str, Any]:
        """What is logged of it."""
        calls = [self.calls[index] for index in sorted(self.calls)] or None
        content = "".join(self.texts) if self.texts or not calls else None
        return {"content": content, "tool_calls": calls, "finish_reason": self.finish}


@dataclass(slots=True)
class StreamedAnswer:
    """Gathers a server-sent stream: feed it bytes as they come, pass on what it gives back.

    Only whole events are passed on, unchanged and in order. The usage chunk is asked for by the
    gateway itself, so it is taken out unless the client asked for it too.
    """

    keep_usage: bool
    first_token: bool = False
    """A chunk with text or a tool call has come."""
    done: bool = False
    """The stream ended as it should: with ``[DONE]`` or a finish reason for every choice."""
    over: bool = False
    """``[DONE]`` has come: nothing follows."""
    error: str | None = None
    """The server said that it failed, or what it sent is no completion; that event is not passed on."""
    _rest: bytes = b""
    _choices: dict[int, _Gathered] = field(default_factory=dict)
    _tokens: tuple[int, int] = (0, 0)

    def feed(self, data: bytes) -> bytes:
        """Take bytes in; returns the whole events among them that go to the client."""
        data = self._rest + data if self._rest else data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        return b"".join(event + b"\n\n" for event in events if self._take(event))

    def _take(self, event: bytes) -> bool:
        """Note what one event says; False where it is not the client's."""
        payload = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if payload == _DONE:
            self.done = self.over = True
            return True
        if not payload:
            return bool(event.strip())  # a comment that keeps the connection alive
        try:
            value = orjson.loads(payload)
            if value.get("error"):
                self.error = str(value["error"])[:2000]
                return False
            usage, choices = value.get("usage"), value.get("choices")
            if usage:
                self._tokens = _usage(usage)
            for choice in choices or ():
                self._gather(choice)
        except (ValueError, TypeError, AttributeError) as error:
            self.error = f"the model server's stream is no completion: {error!r}"[:500]
            return False
        return bool(choices) or self.keep_usage or not usage

    def _gather(self, choice: dict[str, Any]) -> None:
        index = choice.get("index") or 0
        gathered = self._choices.get(index) or self._choices.setdefault(index, _Gathered())
        delta = choice.get("delta") or {}
        text = delta.get("content") or choice.get("text")
        calls = delta.get("tool_calls")
        if text:
            gathered.texts.append(str(text))
        for call in calls or ():
            gathered.merge(call)
        if text or calls:
            self.first_token = True
        if choice.get("finish_reason"):
            gathered.finish = str(choice["finish_reason"])
            self.done = all(other.finish for other in self._choices.values())

    def answer(self) -> Answer:
        """What has come so far; no response where nothing has."""
        begun = [self._choices[index] for index in sorted(self._choices)]
        if not any(one.texts or one.calls or one.finish for one in begun):
            return Answer(None, *self._tokens)
        return Answer(_response([one.choice() for one in begun]), *self._tokens)

"""Spans of model calls to inferences, after OpenTelemetry's GenAI conventions, old and new; pure.

A span that is no call of a text model (an agent, a tool, an embedding, a database) is none of our
business; a call whose span lacks what an inference needs is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from ratchet.schemas.events import Inference
from ratchet.schemas.explain import explain
from ratchet.schemas.ids import ADAPTER_NAME, BASE, hash_user, span_inference_id
from ratchet.services.rules.genai_messages import Message, conversation, tools
from ratchet.services.rules.span import BadSpan, Span

_CALLS = ("chat", "generate_content", "text_completion")
_REQUEST_TYPES = {"chat": "chat", "completion": "text_completion"}
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
_MODEL = ("gen_ai.response.model", "gen_ai.request.model")
_USER = ("enduser.id", "user.id", "enduser.pseudo.id", "gen_ai.user", "llm.user")
_STREAM = ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming")
_INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens")
_OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens")
_FIRST_CHUNK = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.response.time_to_first_token",
    "gen_ai.server.time_to_first_token",
)
_CHUNK_EVENTS = ("gen_ai.content.completion.chunk", "llm.content.completion.chunk")
_PARAMS = {
    "temperature": ("gen_ai.request.temperature",),
    "top_p": ("gen_ai.request.top_p",),
    "top_k": ("gen_ai.request.top_k", "llm.top_k"),
    "max_tokens": ("gen_ai.request.max_tokens",),
    "seed": ("gen_ai.request.seed", "gen_ai.openai.request.seed"),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", "llm.frequency_penalty"),
    "presence_penalty": ("gen_ai.request.presence_penalty", "llm.presence_penalty"),
    "stop": ("gen_ai.request.stop_sequences", "llm.chat.stop_sequences"),
    "n": ("gen_ai.request.choice.count",),
}
# What users said stays out of the reasons, which end up in exporters' logs.
_HIDDEN = frozenset({"request", "response", "user"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ERROR = 2_000
_MAX_TAG = 1_024


def read_span(span: Span, tasks: Collection[str], base_model: str) -> Inference | None:
    """Turn a span into the inference that it tells of; None where it is no call of a text model.

    Args:
        span: the span.
        tasks: the declared tasks.
        base_model: what the declared tasks' adapters were trained on.

    Raises:
        BadSpan: it is such a call, but no inference can be made of it.
    """
    operation = _operation(span)
    if operation is None:
        return None
    if (len(span.trace_id), len(span.span_id)) != (32, 16):
        raise BadSpan("ids: a trace id has 16 bytes and a span id 8")
    if not span.start_ns or span.end_ns < span.start_ns:
        raise BadSpan("times: a span has a start and an end that is not before it")
    adapter = _adapter(span)
    task = _task(span, adapter, tasks)
    status = _status(span)
    messages, answer = conversation(span)
    if not messages:
        raise BadSpan("no messages: switch on content capture in the instrumentation, on spans (not on log events)")
    if answer is None and status == "ok":
        raise BadSpan("no answer: the span says neither what the model answered nor that it failed")
    model = span.text(*_MODEL) or "unknown"
    provider, service = span.text(*_PROVIDER), span.resource.get("service.name")
    user, ttft_ms = span.text(*_USER), _ttft_ms(span)
    tags = {"trace_id": span.trace_id, "span_id": span.span_id, "service.name": service, "provider": provider}
    try:
        return Inference.model_validate(
            {
                "id": span_inference_id(span.trace_id, span.span_id, span.start_ns),
                "at": _EPOCH + timedelta(microseconds=span.start_ns // 1000),
                "task": task,
                "conversation_id": span.text("gen_ai.conversation.id", "session.id"),
                "user": hash_user(user) if user else None,
                "adapter": adapter,
                "stage": "stable",
                "base_model": base_model if ADAPTER_NAME.match(model) else model,
                "request": _request(span, operation, messages),
                "response": _response(span, answer),
                "status": status,
                "error": None if status == "ok" else _error(span)[:_MAX_ERROR],
                "latency_ms": (span.end_ns - span.start_ns) / 1e6,
                "ttft_ms": ttft_ms,
                "prompt_tokens": span.first(*_INPUT_TOKENS) or 0,
                "completion_tokens": span.first(*_OUTPUT_TOKENS) or 0,
                "stream": ttft_ms is not None or span.first(*_STREAM) is True,
                "source": "otlp",
                "tags": {key: value[:_MAX_TAG] for key, value in tags.items() if isinstance(value, str) and value},
            }
        )
    except ValidationError as error:
        raise BadSpan(explain(error, _HIDDEN)) from None


def _operation(span: Span) -> str | None:
    named = span.text("gen_ai.operation.name")
    if named is None and (kind := span.text("llm.request.type")):
        named = _REQUEST_TYPES.get(kind)
    elif named is None and span.text(*_PROVIDER) and span.text("gen_ai.request.model"):
        named = "chat"  # before there was an operation's name, there were no other operations
    return named if named in _CALLS else None


def _adapter(span: Span) -> str:
    """The adapter that the app names, else one that it asked the model server for by name, else the base model."""
    named = span.first("ratchet.adapter")
    if named is not None:
        if named != BASE and not (isinstance(named, str) and ADAPTER_NAME.match(named)):
            raise BadSpan(f"ratchet.adapter: {named!r:.80}; allowed: 'base' or <task>@v<number>-<8 hex digits>")
        return str(named)
    models = (span.text(name) for name in _MODEL)
    return next((model for model in models if model and ADAPTER_NAME.match(model)), BASE)


def _task(span: Span, adapter: str, tasks: Collection[str]) -> str:
    declared = ", ".join(sorted(tasks))
    match = ADAPTER_NAME.match(adapter)
    named = span.first("ratchet.task")
    if named is None:
        named = span.resource.get("ratchet.task")
    if named is None:
        only = next(iter(tasks)) if len(tasks) == 1 else None
        guesses = (match["task"] if match else None, span.resource.get("service.name"), only)
        named = next((guess for guess in guesses if isinstance(guess, str) and guess in tasks), None)
    if named is None:
        raise BadSpan(f"no task: set ratchet.task on the span or the resource; allowed: {declared}")
    if not isinstance(named, str) or named not in tasks:
        raise BadSpan(f"ratchet.task: {named!r:.80} is not declared; allowed: {declared}")
    if match and match["task"] != named:
        raise BadSpan(f"ratchet.task: {named!r}, but {adapter!r} is an adapter of another task")
    return named


def _status(span: Span) -> Literal["ok", "error", "timeout", "cancelled"]:
    kind = span.text("error.type")
    if not span.failed and kind is None:
        return "ok"
    lowered = (kind or "").lower()
    return "timeout" if "timeout" in lowered else "cancelled" if "cancel" in lowered else "error"


def _error(span: Span) -> str:
    exceptions = (event.attributes.get("exception.message") for event in span.events if event.name == "exception")
    said = next((text for text in exceptions if isinstance(text, str) and text), None)
    return span.message or said or span.text("error.type") or "the span's status is error"


def _ttft_ms(span: Span) -> float | None:
    seconds = span.first(*_FIRST_CHUNK)
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return seconds * 1000.0
    chunks = (event.time_ns - span.start_ns for event in span.events if event.name in _CHUNK_EVENTS)
    first = next(chunks, None)
    return None if first is None or first < 0 else first / 1e6


def _request(span: Span, operation: str, messages: list[Message]) -> dict[str, Any]:
    params = {name: value for name, names in _PARAMS.items() if (value := span.first(*names)) is not None}
    common = {"params": params, "tools": tools(span), "response_format": _response_format(span)}
    contents = [message.get("content") for message in messages if message["role"] == "user"]
    if operation == "text_completion" and len(contents) == len(messages) and all(isinstance(c, str) for c in contents):
        # conventions know only messages: the texts of a completion stand there as a user's
        return common | {"prompt": contents[0] if len(contents) == 1 else contents}
    return common | {
        "messages": [{key: item for key, item in message.items() if key != "finish_reason"} for message in messages]
    }


def _response_format(span: Span) -> dict[str, Any] | None:
    kind = span.text("gen_ai.openai.request.response_format")
    if kind is None and span.text("gen_ai.output.type") == "json":
        kind = "json_object"
    return {"type": kind} if kind else None


def _response(span: Span, answer: Message | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    reasons = span.first("gen_ai.response.finish_reasons")
    reason = answer.get("finish_reason") or (reasons[0] if isinstance(reasons, list) and reasons else None)
    content = answer.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return {
        "content": content,
        "tool_calls": answer.get("tool_calls"),
        "finish_reason": "tool_calls" if reason == "tool_call" else reason,
    }

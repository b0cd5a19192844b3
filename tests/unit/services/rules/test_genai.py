"""Spans of the old and the new GenAI conventions become inferences, or say why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.events import Inference
from ratchet.schemas.ids import hash_user, span_inference_id
from ratchet.services.rules.genai import read_span
from ratchet.services.rules.span import BadSpan, Span, SpanEvent

START = 1_764_000_000_123_456_789
TASKS = ("support", "tickets")
IMAGE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
CALL = {"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
LOOK_UP = {
    "type": "function",
    "function": {"name": "look_up", "description": "d", "parameters": {"type": "object"}},
}
HELLO = [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}]
WELL = [{"role": "assistant", "parts": [{"type": "text", "content": "All well"}], "finish_reason": "stop"}]
NEW = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-x",
    "gen_ai.input.messages": json.dumps(HELLO),
    "gen_ai.output.messages": json.dumps(WELL),
}
OLD = {"gen_ai.system": "openai", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-x"}


def span(attributes: dict[str, Any], *events: SpanEvent, **changes: Any) -> Span:
    """A span of 40.5 ms of the task ``support``."""
    values: dict[str, Any] = {
        "trace_id": "0a" * 16,
        "span_id": "0b" * 8,
        "start_ns": START,
        "end_ns": START + 40_500_000,
        "attributes": {key: value for key, value in attributes.items() if value is not None},
        "resource": {"service.name": "support"},
        "events": events,
    }
    return Span(**(values | changes))


def said(name: str, **attributes: Any) -> SpanEvent:
    """A span event 10 ms after the start."""
    return SpanEvent(name, START + 10_000_000, attributes)


def read(one: Span, tasks: tuple[str, ...] = TASKS) -> Inference:
    """The span's inference, after a round over the wire."""
    inference = read_span(one, tasks, "tiny")
    assert inference is not None
    return Inference.model_validate_json(inference.to_bytes())


def reason(one: Span, tasks: tuple[str, ...] = TASKS) -> str:
    """Why the span is refused."""
    with pytest.raises(BadSpan) as caught:
        read_span(one, tasks, "tiny")
    return str(caught.value)


NEW_CONVENTIONS = span(
    NEW
    | {
        # as opentelemetry-instrumentation-openai 0.62.4 wrote it for a chat with an image and a tool
        "gen_ai.input.messages": json.dumps(
            [
                {"role": "system", "parts": [{"content": "Be brief.", "type": "text"}]},
                {
                    "role": "user",
                    "parts": [
                        {"type": "text", "content": "Hi?"},
                        {"type": "uri", "modality": "image", "uri": "http://x/y.png"},
                    ],
                },
                {"role": "assistant", "parts": [{"type": "tool_call", "name": "f", "id": "c0", "arguments": {"a": 1}}]},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c0", "response": "42"}]},
            ]
        ),
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.user": "ann",
        "gen_ai.is_streaming": False,
        "gen_ai.response.model": "gpt-x-0613",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.tool.definitions": json.dumps(
            [{"type": "function", "name": "look_up", "description": "d", "parameters": {"type": "object"}}]
        ),
    }
)
OPENLLMETRY = span(
    {
        # the same call as version 0.40.14 wrote it
        "llm.request.type": "chat",
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "llm.user": "ann",
        "llm.is_streaming": False,
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "Be brief.",
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": json.dumps([{"type": "text", "text": "Hi?"}, IMAGE]),
        "gen_ai.prompt.2.role": "assistant",
        "gen_ai.prompt.2.tool_calls.0.id": "c0",
        "gen_ai.prompt.2.tool_calls.0.name": "f",
        "gen_ai.prompt.2.tool_calls.0.arguments": '{"a":1}',
        "gen_ai.prompt.3.role": "tool",
        "gen_ai.prompt.3.content": "42",
        "gen_ai.prompt.3.tool_call_id": "c0",
        "llm.request.functions.0.name": "look_up",
        "llm.request.functions.0.description": "d",
        "llm.request.functions.0.parameters": '{"type": "object"}',
        "gen_ai.response.model": "gpt-x-0613",
        "gen_ai.usage.completion_tokens": 3,
        "gen_ai.usage.prompt_tokens": 11,
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "All well",
    }
)


@pytest.mark.parametrize("one", [NEW_CONVENTIONS, OPENLLMETRY], ids=["new", "OpenLLMetry"])
def test_one_call_in_two_conventions_is_one_inference(one: Span) -> None:
    """Roles, parts, tool calls, parameters, usage and user come out the same from what two real versions wrote."""
    event = read(one)
    assert event.request.messages is not None
    messages = [{key: item for key, item in message.items() if item is not None} for message in event.request.messages]
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi?"}, IMAGE]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "c0"},
    ]
    assert event.request.params == {"temperature": 0.5, "max_tokens": 20}
    assert event.request.tools == [LOOK_UP]
    assert event.response is not None
    assert event.response.model_dump(exclude_none=True) == {"content": "All well", "finish_reason": "stop"}
    assert (event.prompt_tokens, event.completion_tokens) == (11, 3)
    assert (event.task, event.adapter, event.stage, event.source) == ("support", "base", "stable", "otlp")
    assert (event.base_model, event.status, event.error, event.stream) == ("gpt-x-0613", "ok", None, False)
    assert event.user == hash_user("ann")
    assert event.latency_ms == 40.5
    assert event.at.isoformat() == "2025-11-24T16:00:00.123456+00:00"
    assert event.tags.keys() == {"trace_id", "span_id", "service.name", "provider"}


@pytest.mark.parametrize(
    "one",
    [
        span(
            {
                "llm.request.type": "completion",
                "gen_ai.system": "OpenAI",
                "gen_ai.request.model": "m",
                "gen_ai.prompt.0.user": "once",
                "gen_ai.completion.0.content": "upon",
            }
        ),
        span(
            NEW
            | {
                "gen_ai.operation.name": "text_completion",
                "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "once"}]}],
            }
        ),
    ],
    ids=["OpenLLMetry", "new"],
)
def test_a_text_completion_has_a_prompt(one: Span) -> None:
    """What the conventions dress as a user's message is the prompt that it was."""
    event = read(one)
    assert (event.request.prompt, event.request.messages) == ("once", None)


def test_parameters_and_the_first_token() -> None:
    """Every known parameter under OpenAI's name; seconds to the first chunk are milliseconds and mean a stream."""
    event = read(
        span(
            NEW
            | {
                "gen_ai.request.top_p": 0.9,
                "gen_ai.request.top_k": 4.0,
                "gen_ai.openai.request.seed": 3,
                "gen_ai.request.stop_sequences": ["x"],
                "gen_ai.request.choice.count": 2,
                "gen_ai.output.type": "json",
                "gen_ai.response.time_to_first_chunk": 0.0125,
                "gen_ai.conversation.id": "c-1",
            }
        )
    )
    assert event.request.params == {"top_p": 0.9, "top_k": 4.0, "seed": 3, "stop": ["x"], "n": 2}
    assert event.request.response_format == {"type": "json_object"}
    assert (event.ttft_ms, event.stream, event.conversation_id) == (12.5, True, "c-1")
    chunks = [said("llm.content.completion.chunk"), said("llm.content.completion.chunk")]
    assert read(span(NEW, *chunks)).ttft_ms == 10.0


@pytest.mark.parametrize(
    ("attributes", "changes", "status", "error"),
    [
        ({"error.type": "InternalServerError"}, {"failed": True, "message": "boom"}, "error", "boom"),
        ({"error.type": "APITimeoutError"}, {}, "timeout", "APITimeoutError"),
        ({"error.type": "CancelledError"}, {}, "cancelled", "CancelledError"),
        ({}, {"failed": True, "events": [said("exception", **{"exception.message": "lost"})]}, "error", "lost"),
    ],
)
def test_a_failed_call_needs_no_answer(
    attributes: dict[str, Any], changes: dict[str, Any], status: str, error: str
) -> None:
    """Status and message come from the span's status, its error type or its exception."""
    event = read(span(NEW | {"gen_ai.output.messages": None} | attributes, **changes))
    assert (event.status, event.error, event.response) == (status, error, None)


ADAPTER = "support@v3-1a2b3c4d"


@pytest.mark.parametrize(
    ("attributes", "resource", "tasks", "task", "adapter"),
    [
        ({"ratchet.task": "tickets"}, {"service.name": "support"}, TASKS, "tickets", "base"),
        ({}, {"service.name": "x", "ratchet.task": "tickets"}, TASKS, "tickets", "base"),
        ({}, {"service.name": "x"}, ("tickets",), "tickets", "base"),
        ({"ratchet.adapter": ADAPTER}, {}, TASKS, "support", ADAPTER),
        ({"gen_ai.request.model": ADAPTER}, {"service.name": "tickets"}, TASKS, "support", ADAPTER),
        ({"gen_ai.request.model": ADAPTER, "ratchet.adapter": "base"}, {}, ("support",), "support", "base"),
    ],
)
def test_whose_call_it_was(
    attributes: dict[str, Any], resource: dict[str, Any], tasks: tuple[str, ...], task: str, adapter: str
) -> None:
    """The task and the adapter as the app names them, else by the model's name, the service or the only task."""
    event = read(span(NEW | attributes, resource=resource), tasks)
    assert (event.task, event.adapter) == (task, adapter)
    assert event.base_model == ("tiny" if attributes.get("gen_ai.request.model") else "gpt-x")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.request.method": "GET"},
        {"gen_ai.operation.name": "embeddings"},
        {"gen_ai.operation.name": "execute_tool"},
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m", "gen_ai.system": "openai"},
        {"llm.request.type": "embedding", "gen_ai.system": "OpenAI", "gen_ai.request.model": "m"},
    ],
)
def test_other_spans_are_passed_over(attributes: dict[str, Any]) -> None:
    """What is no call of a text model is nobody's error."""
    assert read_span(span(attributes), TASKS, "tiny") is None


@pytest.mark.parametrize(
    ("why", "one"),
    [
        ("no messages: switch on content capture", span(OLD)),
        ("no answer", span(NEW | {"gen_ai.output.messages": None})),
        ("gen_ai.input.messages: a text that is not JSON", span(NEW | {"gen_ai.input.messages": "Hello"})),
        ("ratchet.task: 'x' is not declared; allowed: support, tickets", span(NEW | {"ratchet.task": "x"})),
        ("no task: set ratchet.task", span(NEW, resource={})),
        ("ratchet.adapter: 'v3'; allowed", span(NEW | {"ratchet.adapter": "v3"})),
        ("another task", span(NEW | {"ratchet.adapter": ADAPTER, "ratchet.task": "tickets"})),
        ("prompt_tokens", span(NEW | {"gen_ai.usage.input_tokens": -1})),
        ("conversation_id", span(NEW | {"gen_ai.conversation.id": "c" * 300})),
        ("times", span(NEW, start_ns=0)),
        ("times", span(NEW, end_ns=START - 1)),
        ("ids", span(NEW, trace_id="")),
    ],
)
def test_a_bad_span_says_why(why: str, one: Span) -> None:
    """A call that cannot become an inference is refused with what is wrong and what is allowed."""
    assert why in reason(one)


def test_reasons_keep_what_users_said_to_themselves() -> None:
    """A refusal ends up in an exporter's log: it names the field and shows no content."""
    one = span(NEW | {"gen_ai.output.messages": [{"role": "assistant", "content": {"secret": "sesame"}}]})
    assert "response" in reason(one)
    assert "sesame" not in reason(one)


def test_the_id_is_the_spans() -> None:
    """One span is one inference however often it comes, under an id that the app can work out; another is another."""
    event = read(span(NEW))
    assert event.id == read(span(NEW)).id == span_inference_id("0a" * 16, "0b" * 8, START)
    assert event.id != read(span(NEW, span_id="0c" * 8)).id


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["user", "text", "tool_call", "tool_call_response", "uri", "image", "[{", '[{"role":"a"}]', "{}"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "parts", "type", "content", "tool_calls", "id", "name", "message", "modality"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *NEW_CONVENTIONS.attributes,
        *OPENLLMETRY.attributes,
        "gen_ai.prompt",
        "gen_ai.completion",
        "gen_ai.prompt.0.tool_calls",
        "gen_ai.system_instructions",
        "gen_ai.event.content",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.output.type",
        "ratchet.task",
        "ratchet.adapter",
        "error.type",
        "message",
        "content",
        "tool_calls",
        "finish_reason",
    ]
)
ATTRIBUTES = st.dictionaries(NAMES, VALUES | VALUES.map(json.dumps), max_size=6)
EVENTS = st.lists(
    st.builds(
        SpanEvent,
        st.sampled_from(["gen_ai.user.message", "gen_ai.tool.message", "gen_ai.choice", "gen_ai.content.prompt"]),
        st.integers(0, 2**64 - 1),
        ATTRIBUTES,
    ),
    max_size=3,
)


@given(
    base=st.sampled_from([{}, OLD, NEW]),
    attributes=ATTRIBUTES,
    resource=ATTRIBUTES,
    events=EVENTS,
    times=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    failed=st.booleans(),
)
def test_no_span_breaks_the_reader(
    base: dict[str, Any],
    attributes: dict[str, Any],
    resource: dict[str, Any],
    events: list[SpanEvent],
    times: tuple[int, int],
    failed: bool,
) -> None:
    """Whatever the attributes hold: an event that is one on the wire too, None, or a reason, and nothing else."""
    one = span(
        base | attributes,
        *events,
        resource={"service.name": "support"} | resource,
        start_ns=times[0],
        end_ns=times[1],
        failed=failed,
    )
    try:
        event = read_span(one, TASKS, "tiny")
    except BadSpan:
        return
    if event is not None:
        assert Inference.model_validate_json(event.to_bytes()).id == event.id

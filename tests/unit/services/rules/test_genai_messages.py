"""Every place and form in which instrumentations have put messages on spans."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ratchet.services.rules.genai_messages import conversation, tools
from ratchet.services.rules.span import BadSpan, Span, SpanEvent

HELLO = [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}]
WELL = [{"role": "assistant", "parts": [{"type": "text", "content": "All well"}], "finish_reason": "stop"}]
ANSWER = json.dumps({"role": "assistant", "content": "All well", "finish_reason": "stop"})


def span(attributes: dict[str, Any], *events: SpanEvent) -> Span:
    """A span of which only the messages matter."""
    return Span("0a" * 16, "0b" * 8, 1, 2, attributes, events=events)


def said(name: str, **attributes: Any) -> SpanEvent:
    """A span event."""
    return SpanEvent(name, 1, attributes)


@pytest.mark.parametrize(
    "one",
    [
        span({"gen_ai.input.messages": HELLO, "gen_ai.output.messages": WELL}),
        span(
            {
                "gen_ai.input.messages": [{"role": "user", "content": "Hello"}],
                "gen_ai.output.messages": [{"role": "assistant", "content": "All well", "finish_reason": "stop"}],
            }
        ),
        span(
            {},
            said("gen_ai.user.message", content="Hello"),
            said("gen_ai.choice", index=0, finish_reason="stop", message='{"content": "All well"}'),
        ),
        span(
            {},
            said("gen_ai.user.message", **{"gen_ai.event.content": '{"content": "Hello"}'}),
            said(
                "gen_ai.choice",
                **{"gen_ai.event.content": '{"message": {"content": "All well"}, "finish_reason": "stop"}'},
            ),
        ),
        span(
            {},
            said("gen_ai.content.prompt", **{"gen_ai.prompt": '[{"role": "user", "content": "Hello"}]'}),
            said("gen_ai.content.completion", **{"gen_ai.completion": ANSWER}),
        ),
        span(
            {
                "gen_ai.prompt": "Hello",
                "gen_ai.completion": ANSWER,
            }
        ),
        span(
            {},
            said(
                "gen_ai.client.inference.operation.details",
                **{"gen_ai.input.messages": HELLO, "gen_ai.output.messages": WELL},
            ),
        ),
        span(
            {"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Hello"}
            | {"gen_ai.completion.0.content": "All well", "gen_ai.completion.0.finish_reason": "stop"}
            | {"gen_ai.completion.1.content": "Another choice"}
        ),
    ],
    ids=[
        "structured",
        "openai's own form",
        "events with attributes",
        "events with a body",
        "content events",
        "plain attributes without operation",
        "details event",
        "indexed",
    ],
)
def test_every_place_for_messages(one: Span) -> None:
    """The same exchange is read from every place where an instrumentation puts it."""
    asked, answer = conversation(one)
    assert asked == [{"role": "user", "content": "Hello"}]
    assert answer == {"role": "assistant", "content": "All well", "finish_reason": "stop"}


def test_instructions_and_several_tools() -> None:
    """System instructions come first; one message with two tools' answers becomes two; thoughts are left out."""
    parts = [
        {"type": "reasoning", "content": "hm"},
        {"type": "tool_call", "id": "c1", "name": "f", "arguments": None},
    ]
    answers = [
        {"type": "tool_call_response", "id": "c0", "result": {"a": 1}},
        {"type": "tool_call_response", "id": "c1", "response": None},
    ]
    one = span(
        {
            "gen_ai.system_instructions": '[{"type": "text", "content": "A"}, {"type": "text", "content": "B"}]',
            "gen_ai.input.messages": [{"role": "tool", "parts": answers}],
            "gen_ai.output.messages": [{"role": "assistant", "parts": parts, "finish_reason": "tool_call"}],
        }
    )
    asked, answer = conversation(one)
    assert asked == [
        {"role": "system", "content": "A\nB"},
        {"role": "tool", "content": '{"a":1}', "tool_call_id": "c0"},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
    ]
    assert answer == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        "finish_reason": "tool_call",
    }


@pytest.mark.parametrize(
    ("attributes", "content"),
    [
        ({"gen_ai.prompt.0.content": '[{"type": "text", "text": "Hello"}]'}, [{"type": "text", "text": "Hello"}]),
        ({"gen_ai.prompt.0.content": '[{"customer": "Ann"}]'}, '[{"customer": "Ann"}]'),
        ({"gen_ai.prompt": '{"customer": "Ann"}'}, '{"customer": "Ann"}'),
        ({"gen_ai.prompt": "[]"}, "[]"),
        (
            {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": '{"a": 1}'}]}]},
            '{"a": 1}',
        ),
        (
            {
                "gen_ai.input.messages": [
                    {
                        "role": "user",
                        "parts": [{"type": "blob", "modality": "image", "mime_type": "image/gif", "content": "R0lG"}],
                    }
                ]
            },
            [{"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG"}}],
        ),
    ],
)
def test_a_text_that_happens_to_be_json_stays_a_text(attributes: dict[str, Any], content: Any) -> None:
    """Only what OpenAI's parts look like is taken for parts; images become OpenAI's."""
    assert conversation(span(attributes))[0] == [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"gen_ai.input.messages": "Hello"}, "gen_ai.input.messages: a text that is not JSON"),
        ({"gen_ai.input.messages": [1]}, "gen_ai.input.messages: allowed: a list of objects"),
        ({"gen_ai.input.messages": [{"parts": []}]}, "gen_ai.input.messages: a message without role"),
        ({"gen_ai.output.messages": [{"role": "a", "parts": 1}]}, "gen_ai.output.messages: allowed: a list of objects"),
        ({"gen_ai.system_instructions": "[1]"}, "gen_ai.system_instructions: allowed: a list of objects"),
    ],
)
def test_messages_in_no_known_form(attributes: dict[str, Any], why: str) -> None:
    """The reason names the attribute."""
    with pytest.raises(BadSpan, match=why):
        conversation(span(attributes))


def test_tools_in_no_known_form() -> None:
    """Tool definitions are a list of objects; kinds other than functions stay as they are."""
    assert tools(span({"gen_ai.tool.definitions": [{"type": "web_search"}]})) == [{"type": "web_search"}]
    with pytest.raises(BadSpan, match="a text that is not JSON"):
        tools(span({"gen_ai.tool.definitions": "hammer"}))

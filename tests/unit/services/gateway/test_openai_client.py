"""The official `openai` client against the gateway, as an app uses it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from ratchet.schemas.events import Inference

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


@pytest.fixture
def client(world: Any) -> Any:
    """A synchronous client without retries of its own."""
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_answers_and_is_logged_as_the_model_saw_it(world: Any, client: openai.OpenAI) -> None:
    """A plain chat gives the model's answer, the three headers, and one event with the system prompt in front."""
    raw = client.chat.completions.with_raw_response.create(
        model="support", messages=HELLO, temperature=0.5, user="ann@example.com", metadata={"channel": "mail"}
    )
    assert raw.parse().choices[0].message.content == "All is well"
    assert raw.headers["x-ratchet-adapter"] == "base"
    assert raw.headers["x-ratchet-stage"] == "stable"
    (event,) = world.events(Inference, 1)
    assert event.id == raw.headers["x-ratchet-inference-id"]
    assert event.request.messages == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert event.request.params == {"temperature": 0.5}
    assert event.response.content == "All is well"
    assert (event.status, event.prompt_tokens, event.completion_tokens) == ("ok", 11, 3)
    assert event.tags == {"channel": "mail"}
    assert len(event.user) == 32
    sent = world.peer.requests[0]
    assert sent["model"] == "tiny"
    assert sent["messages"] == event.request.messages
    assert "ann@example.com" not in str(sent) + event.to_bytes().decode()


def test_the_clients_own_system_message_stays_alone(world: Any, client: openai.OpenAI) -> None:
    """A client that brings a system message gets no second one."""
    messages: list[Any] = [{"role": "system", "content": "Rhyme."}, *HELLO]
    client.chat.completions.create(model="support", messages=messages)
    assert world.peer.requests[0]["messages"] == messages


def test_unknown_parameters_reach_the_model(world: Any, client: openai.OpenAI) -> None:
    """What the gateway does not know is passed on and logged as a parameter; n gives n choices."""
    answer = client.chat.completions.create(
        model="bare", messages=HELLO, n=2, logprobs=True, seed=3, extra_body={"min_p": 0.1, "guided": {"a": [1]}}
    )
    assert len(answer.choices) == 2
    sent = world.peer.requests[0]
    assert {key: sent[key] for key in ("n", "logprobs", "seed", "min_p", "guided")} == {
        "n": 2,
        "logprobs": True,
        "seed": 3,
        "min_p": 0.1,
        "guided": {"a": [1]},
    }
    assert world.events(Inference, 1)[0].request.params["min_p"] == 0.1


def test_tools_and_response_format_pass_through(world: Any, client: openai.OpenAI) -> None:
    """Tool calls come back to the client and into the event."""
    answer = client.chat.completions.create(
        model="bare", messages=HELLO, tools=TOOLS, response_format={"type": "json_object"}
    )
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    assert call.function.name == "look_up"
    (event,) = world.events(Inference, 1)
    assert event.request.tools == TOOLS
    assert event.request.response_format == {"type": "json_object"}
    assert event.response.tool_calls[0]["function"]["arguments"] == '{"order": 7}'


def test_stream_without_usage(world: Any, client: openai.OpenAI) -> None:
    """A stream comes in its pieces, without the usage chunk that the gateway asked for itself."""
    chunks = list(client.chat.completions.create(model="bare", messages=HELLO, stream=True))
    assert [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content] == ["All", " is", " well"]
    assert all(chunk.usage is None for chunk in chunks)
    (event,) = world.events(Inference, 1)
    assert event.response.content == "All is well"
    assert event.response.finish_reason == "stop"
    assert (event.stream, event.prompt_tokens, event.completion_tokens) == (True, 11, 3)
    assert 0 <= event.ttft_ms <= event.latency_ms


def test_stream_with_usage(world: Any, client: openai.OpenAI) -> None:
    """A client that asks for usage gets its chunk."""
    chunks = list(
        client.chat.completions.create(
            model="bare", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14


def test_stream_helper_gathers_tool_calls(world: Any, client: openai.OpenAI) -> None:
    """The client's streaming helper puts a tool call together, and so does the event."""
    with client.chat.completions.stream(model="bare", messages=HELLO, tools=TOOLS) as stream:
        final = stream.get_final_completion()
    calls: Any = final.choices[0].message.tool_calls
    assert calls[0].function.arguments == '{"order": 7}'
    (event,) = world.events(Inference, 1)
    assert event.response.tool_calls == [
        {"type": "function", "function": {"arguments": '{"order": 7}', "name": "look_up"}, "id": "c1"}
    ]


def test_text_completions(world: Any, client: openai.OpenAI) -> None:
    """Text completions, whole and streamed, are answered and logged with their prompt untouched."""
    assert client.completions.create(model="support", prompt="Say").choices[0].text == "All is well"
    pieces = [c.choices[0].text for c in client.completions.create(model="support", prompt=["Say"], stream=True)]
    assert "".join(pieces) == "All is well"
    first, second = world.events(Inference, 2)
    assert (first.request.prompt, second.request.prompt) == ("Say", ["Say"])
    assert second.response.content == "All is well"


def test_every_choice_is_logged(world: Any, client: openai.OpenAI) -> None:
    """With n=2 the client gets both choices, and the event has the first as its answer and the other beside it."""
    answer = client.chat.completions.create(model="bare", messages=HELLO, n=2)
    assert [choice.message.content for choice in answer.choices] == ["All is well"] * 2
    chunks = list(client.chat.completions.create(model="bare", messages=HELLO, n=2, stream=True))
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == dict.fromkeys((0, 1), "All is well")
    client.chat.completions.create(model="bare", messages=HELLO, tools=TOOLS, n=2)
    whole, streamed, calls = world.events(Inference, 3)
    for event in (whole, streamed):
        assert event.response.content == "All is well"
        assert event.response.further_choices == [{"content": "All is well", "finish_reason": "stop"}]
    (other,) = calls.response.further_choices
    assert (other["tool_calls"], other["finish_reason"]) == (calls.response.tool_calls, "tool_calls")


def test_one_choice_is_logged_as_ever(world: Any, client: openai.OpenAI) -> None:
    """Without n the event has no field for further choices."""
    client.chat.completions.create(model="bare", messages=HELLO)
    assert b"further_choices" not in world.events(Inference, 1)[0].to_bytes()


def test_logprobs_pass_through(client: openai.OpenAI) -> None:
    """Whole and streamed, each token comes with its log-probability."""
    answer = client.chat.completions.create(model="bare", messages=HELLO, logprobs=True)
    said: Any = answer.choices[0].logprobs
    assert [(token.token, token.logprob) for token in said.content] == [("All", -0.5), (" is", -0.5), (" well", -0.5)]
    chunks = list(client.chat.completions.create(model="bare", messages=HELLO, logprobs=True, stream=True))
    said = [chunk.choices[0].logprobs for chunk in chunks]
    assert [one.content[0].token for one in said if one] == ["All", " is", " well"]


class Ticket(BaseModel):
    """What the client asks for by ``response_format``."""

    order: int


def test_structured_outputs(world: Any, client: openai.OpenAI) -> None:
    """The client's parse and its streaming helper send a JSON Schema and read the answer by it."""
    world.peer.words = ('{"order"', ":", " 7}")
    parsed = client.chat.completions.parse(model="bare", messages=HELLO, response_format=Ticket)
    assert parsed.choices[0].message.parsed == Ticket(order=7)
    with client.chat.completions.stream(model="bare", messages=HELLO, response_format=Ticket) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert deltas == ['{"order"', ":", " 7}"]
    assert final.choices[0].message.parsed == Ticket(order=7)
    for event in world.events(Inference, 2):
        assert event.request.response_format["json_schema"]["schema"]["required"] == ["order"]
        assert event.response.content == '{"order": 7}'


def test_the_stream_helper_tells_of_tool_calls(client: openai.OpenAI) -> None:
    """Its events for a tool's arguments come as they come."""
    with client.chat.completions.stream(model="bare", messages=HELLO, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
    assert kinds.count("tool_calls.function.arguments.delta") >= 2
    assert "tool_calls.function.arguments.done" in kinds


def test_the_clients_retry_is_answered(world: Any) -> None:
    """A 502 that passes is nothing to the app: the client tries again by itself, and both tries are logged."""
    world.peer.faults["tiny"] = [503]
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=2) as client:
        assert client.chat.completions.create(model="bare", messages=HELLO).choices[0].message.content == "All is well"
    assert {event.status for event in world.events(Inference, 2)} == {"error", "ok"}


def test_a_timeout_in_mid_stream(world: Any, client: openai.OpenAI) -> None:
    """A client that waits too long for the next chunk gives up; the event has what came until then."""
    world.hold()
    chunks = client.with_options(timeout=0.3).chat.completions.create(model="bare", messages=HELLO, stream=True)
    with pytest.raises((openai.APITimeoutError, httpx.TimeoutException)):
        list(chunks)
    (event,) = world.events(Inference, 1)
    assert (event.status, event.response.content) == ("cancelled", "All")


async def test_many_async_requests_at_once(world: Any) -> None:
    """Thirty at once, streamed and whole, are all answered and logged under the ids that the client was told."""
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:

        async def ask(number: int) -> str:
            ask_raw = client.chat.completions.with_raw_response
            messages: list[Any] = [{"role": "user", "content": f"{number}"}]
            raw = await ask_raw.create(model="bare", messages=messages, stream=number % 2 == 0)
            if number % 2 == 0:
                assert "".join([c.choices[0].delta.content or "" async for c in raw.parse()]) == "All is well"
            return raw.headers["x-ratchet-inference-id"]

        told = await asyncio.gather(*(ask(number) for number in range(30)))
    events = {event.id: event for event in world.events(Inference, 30)}
    for number, id in enumerate(told):
        assert events[id].request.messages[-1]["content"] == f"{number}"
        assert events[id].response.content == "All is well"


async def test_async_client(world: Any) -> None:
    """The asynchronous client, whole and streamed, at once."""
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none") as client:
        answer = await client.chat.completions.create(model="bare", messages=HELLO)
        assert answer.choices[0].message.content == "All is well"
        stream = await client.chat.completions.create(model="bare", messages=HELLO, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "All is well"


def test_models_are_the_tasks_and_the_resident_adapters(world: Any, client: openai.OpenAI) -> None:
    """Tasks and adapters of declared tasks are listed; the base model and strangers' adapters are not."""
    world.peer.models.append("stranger@v1-cccccccc")
    names = [model.id for model in client.models.list()]
    assert names == ["bare", "support", "support@v1-aaaaaaaa", "support@v2-bbbbbbbb"]
    assert client.models.retrieve("support@v1-aaaaaaaa").owned_by == "ratchet"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("tiny")


@pytest.mark.parametrize("model", ["nothing", "nothing@v1-aaaaaaaa", "tiny", "Support"])
def test_unknown_model_is_404(client: openai.OpenAI, model: str) -> None:
    """A model that is neither a task nor an adapter of one is OpenAI's model_not_found."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_pinned_adapter(world: Any, client: openai.OpenAI) -> None:
    """A pinned adapter answers whatever the routing table says, and counts for no rollout."""
    world.roll_out(weight_bp=10_000)
    raw = client.chat.completions.with_raw_response.create(model="support@v1-aaaaaaaa", messages=HELLO)
    assert (raw.headers["x-ratchet-adapter"], raw.headers["x-ratchet-stage"]) == ("support@v1-aaaaaaaa", "pinned")
    (event,) = world.events(Inference, 1)
    assert (event.stage, event.task, event.rollout_id) == ("pinned", "support", None)


def test_header_pins_for_testing(world: Any, client: openai.OpenAI) -> None:
    """The request header x-ratchet-adapter pins too, also the base model; a stranger's adapter is refused."""
    world.roll_out(weight_bp=0)
    for name in ("support@v2-bbbbbbbb", "base"):
        raw = client.chat.completions.with_raw_response.create(
            model="support", messages=HELLO, extra_headers={"x-ratchet-adapter": name}
        )
        assert (raw.headers["x-ratchet-adapter"], raw.headers["x-ratchet-stage"]) == (name, "pinned")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="support", messages=HELLO, extra_headers={"x-ratchet-adapter": "bare@v1-aaaaaaaa"}
        )
    assert caught.value.param == "x-ratchet-adapter"


def test_pinned_adapter_that_is_not_loaded_is_404(world: Any, client: openai.OpenAI) -> None:
    """An adapter that no replica has is not found, without a fallback and without an event."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="support@v9-99999999", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert world.publisher.events == []


def test_client_timeout_is_a_cancelled_event(world: Any, client: openai.OpenAI) -> None:
    """A client that gives up waiting is logged as cancelled, not as the adapter's error."""
    world.hold()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=httpx.Timeout(0.3)).chat.completions.create(model="bare", messages=HELLO)
    (event,) = world.events(Inference, 1)
    assert (event.status, event.error) == ("cancelled", "the client hung up")

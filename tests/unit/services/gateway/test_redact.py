"""What goes to Kafka is redacted and counted; what the app sent and gets is not touched."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ratchet.infra.clock import new_id, now
from ratchet.schemas.decoding import parse
from ratchet.schemas.events import Feedback, Inference, Request, Response, Shadow
from ratchet.schemas.policies import RedactionPolicy, TaskPolicy
from ratchet.schemas.rows import prompt_hash
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.redact import EventRedactor
from ratchet.services.rules.redaction import PLACEHOLDER

ANN = "ann@example.com"


def chat(world: Any, content: Any = f"I am {ANN}", **body: Any) -> httpx.Response:
    """One chat request that carries an address."""
    body = {"model": "support", "messages": [{"role": "user", "content": content}]} | body
    return httpx.post(f"{world.url}/v1/chat/completions", json=body, timeout=10)


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_the_models_own_and_the_event_is_redacted(world: Any, stream: bool) -> None:
    """Model and user see the address, whole or streamed in pieces; the event has one placeholder for it in both."""
    world.peer.words = ("Dear ann", "@example", ".com")
    response = chat(world, stream=stream, metadata={"from": ANN}, user=ANN)
    assert world.peer.requests[-1]["messages"][-1]["content"] == f"I am {ANN}"
    if stream:
        lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
        deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == f"Dear {ANN}"
    else:
        assert response.json()["choices"][0]["message"]["content"] == f"Dear {ANN}"
    (event,) = world.events(Inference, 1)
    asked = event.request.messages[-1]["content"]
    (placeholder,) = PLACEHOLDER.findall(asked)
    assert (asked, event.response.content) == (f"I am {placeholder}", f"Dear {placeholder}")
    assert event.tags == {"from": placeholder}
    assert event.request.messages[0]["content"] == "Be brief."
    assert b"ann@" not in event.to_bytes()
    world.await_metric('ratchet_redactions_total{kind="email",task="support"} 3.0')


def test_a_correction_has_the_placeholder_of_its_prompt(world: Any) -> None:
    """Feedback's text is redacted as the inference was, so the pair made of them teaches copying."""
    response = chat(world)
    body = {"inference_id": response.headers["x-ratchet-inference-id"], "kind": "correction", "value": f"To {ANN}: hi"}
    first = httpx.post(f"{world.url}/v1/feedback", json=body | {"id": new_id()})
    assert first.status_code == 202
    (event,) = world.events(Inference, 1)
    (feedback,) = world.events(Feedback, 1)
    (placeholder,) = PLACEHOLDER.findall(event.request.messages[-1]["content"])
    assert feedback.value == f"To {placeholder}: hi"


def test_the_shadow_of_a_request_is_redacted_alike(world: Any) -> None:
    """The candidate gets the real request; its event asks word for word what the production event asks."""
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    chat(world)
    (shadow,) = world.events(Shadow, 1)
    (event,) = world.events(Inference, 1)
    assert world.peer.requests[-1]["messages"][-1]["content"] == f"I am {ANN}"
    assert shadow.request == event.request
    assert b"ann@" not in shadow.to_bytes()


def test_events_of_other_apps_are_redacted_whatever_their_task(world: Any) -> None:
    """``POST /v1/events`` takes the same way out; a task that is not declared has the default policy."""
    at = now().isoformat()
    call = {"schema": "inference.v1", "id": new_id(), "at": at, "task": "elsewhere", "adapter": "base"}
    call |= {"stage": "stable", "base_model": "tiny", "status": "error", "error": f"no {ANN}", "latency_ms": 1}
    call |= {"request": {"prompt": [f"To {ANN}"]}, "user": ANN, "conversation_id": f"mail of {ANN}"}
    said = {"schema": "feedback.v1", "id": new_id(), "at": at, "task": "support", "inference_id": call["id"]}
    said |= {"kind": "comment", "value": f"ask {ANN}", "conversation_id": f"mail of {ANN}"}
    assert httpx.post(f"{world.url}/v1/events", json=[call, said]).status_code == 202
    (event,) = world.events(Inference, 1)
    (feedback,) = world.events(Feedback, 1)
    assert b"ann@" not in event.to_bytes() + feedback.to_bytes()
    assert event.conversation_id == feedback.conversation_id  # still joined
    assert PLACEHOLDER.search(event.error)
    world.await_metric('ratchet_redactions_total{kind="email",task="(undeclared)"} 4.0')


def test_a_task_can_switch_it_off_or_add_its_own(serve: Any) -> None:
    """Each task's policy counts for its own events alone."""
    own = RedactionPolicy(kinds=[], patterns={"ticket": "T-[0-9]{4}"})
    world = serve(tasks={"support": TaskPolicy(redaction=own), "other": TaskPolicy()})
    chat(world, f"T-1234 of {ANN}")
    (event,) = world.events(Inference, 1)
    assert PLACEHOLDER.sub("…", event.request.messages[0]["content"]) == f"… of {ANN}"
    world.await_metric('ratchet_redactions_total{kind="ticket",task="support"} 1.0')


def call(content: str, answer: str, **changes: Any) -> Inference:
    """An event that the gateway might emit."""
    fields: dict[str, Any] = {"id": new_id(), "at": now(), "task": "support", "adapter": "base", "stage": "stable"}
    fields |= {"base_model": "tiny", "status": "ok", "latency_ms": 1, "source": "gateway"}
    request = Request(messages=[{"role": "user", "content": content}])
    return Inference(**fields, request=request, response=Response(content=answer), **changes)


def test_a_redacted_event_is_valid_and_a_clean_one_is_the_same_object() -> None:
    """Consumers can read what is emitted: long tags stay within their limit, a JSON ticket stays JSON."""
    redact = EventRedactor({"support": TaskPolicy()}, "salt", Metrics())
    clean = call("Order 4711-2231", '{"order":"4711-2231"}')
    assert redact(clean) is clean
    dirty = call(f"{ANN} {ANN}", json.dumps({"mail": ANN, "card": 4111111111111111}), tags={"t": "a@b.cc " * 146})
    emitted = redact(dirty)
    assert parse(Inference, emitted.to_bytes()) == emitted
    assert isinstance(emitted, Inference)
    assert set(json.loads(emitted.response.content or "")) == {"mail", "card"} if emitted.response else False
    assert dirty.request.messages == [{"role": "user", "content": f"{ANN} {ANN}"}]


def test_further_choices_are_redacted() -> None:
    """With n above 1 every choice is, not the first alone."""
    event = call("Hello", "All is well")
    response = event.response and event.response.model_copy(update={"further_choices": [{"content": f"Mail {ANN}"}]})
    redact = EventRedactor({"support": TaskPolicy()}, "salt", Metrics())
    emitted = redact(event.model_copy(update={"response": response}))
    assert ANN.encode() not in emitted.to_bytes()
    assert parse(Inference, emitted.to_bytes()) == emitted


def test_a_pattern_that_takes_every_word_leaves_an_event() -> None:
    """A task's own pattern cannot take the names of fields, so what is emitted is an event still."""
    words = RedactionPolicy(patterns={"word": "[A-Za-z_]+"})
    emitted = EventRedactor({"support": TaskPolicy(redaction=words)}, "", Metrics())(call("Hello you", "Good day"))
    assert isinstance(emitted, Inference)
    assert parse(Inference, emitted.to_bytes()) == emitted
    assert emitted.request.messages is not None
    assert PLACEHOLDER.sub("…", str(emitted.request.messages[0]["content"])) == "… …"


def test_the_same_prompt_has_the_same_hash_after_redaction() -> None:
    """Pairs are made among answers to one prompt, so two events of it must still ask the same thing."""
    redact = EventRedactor({"support": TaskPolicy()}, "salt", Metrics())
    one, other, third = (redact(call(text, "x")) for text in (f"I am {ANN}", f"I am {ANN}", "I am bob@example.com"))
    assert isinstance(one, Inference)
    assert isinstance(other, Inference)
    assert isinstance(third, Inference)
    assert prompt_hash(one.request) == prompt_hash(other.request) != prompt_hash(third.request)

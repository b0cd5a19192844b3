"""`POST /v1/feedback` and `POST /v1/events`: idempotent, and every refusal names its field."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Feedback, Inference, Request
from ratchet.schemas.ids import uuid7

HELLO = [{"role": "user", "content": "Hello"}]


def post(world: Any, value: Any, path: str = "/v1/feedback") -> httpx.Response:
    """One call."""
    return httpx.post(world.url + path, json=value)


def inference(**changes: Any) -> dict[str, Any]:
    """An event as an app without the gateway sends it."""
    event = Inference(
        id=new_id(),
        at=now(),
        task="support",
        adapter="base",
        stage="stable",
        base_model="tiny",
        request=Request(prompt="p"),
        status="ok",
        latency_ms=1,
        source="http",
    )
    value: dict[str, Any] = json.loads(event.to_bytes())
    return {key: item for key, item in (value | changes).items() if item is not None}


def test_feedback_on_an_answer_knows_its_task(world: Any) -> None:
    """After a request the inference id is enough: the gateway remembers the task; the user's name is hashed."""
    chat = {"model": "support", "messages": HELLO, "user": "ann"}
    answer = httpx.post(f"{world.url}/v1/chat/completions", json=chat, headers={"x-ratchet-conversation-id": "c-1"})
    id = answer.headers["x-ratchet-inference-id"]
    response = post(world, {"inference_id": id, "kind": "thumb", "value": True, "user": "ann", "tags": {"a": "b"}})
    assert response.status_code == 202
    (feedback,) = world.events(Feedback, 1)
    (event,) = world.events(Inference, 1)
    assert response.json() == {"feedback_id": feedback.id}
    assert (feedback.task, feedback.inference_id, feedback.value) == ("support", id, True)
    assert feedback.user == event.user is not None
    assert "ann" not in feedback.to_bytes().decode().replace("channel", "")
    assert post(world, {"conversation_id": "c-1", "kind": "outcome", "value": False}).status_code == 202
    assert event.conversation_id == "c-1"


def test_the_same_feedback_again_is_a_no_op_and_other_feedback_a_conflict(world: Any) -> None:
    """One id, one body: again is 202 and no event, another body is 409."""
    body = {"id": new_id(), "task": "bare", "inference_id": new_id(), "kind": "rating", "value": 0.5}
    assert [post(world, body).json()["feedback_id"] for _ in range(3)] == [body["id"]] * 3
    other = post(world, body | {"value": 0.6})
    assert other.status_code == 409
    assert other.json()["error"]["param"] == "id"
    assert len(world.events(Feedback, 1)) == 1


@pytest.mark.parametrize("age_h", [0, 30])
def test_feedback_sent_again_after_a_crash_is_the_same_event(serve: Any, age_h: int) -> None:
    """A gateway that does not know the id makes the same event of it, as old as the id says if that is believable."""
    made_ms = int(now().timestamp() * 1000) - age_h * 3_600_000
    id = uuid7(made_ms, b"0123456789")
    body = {"id": id, "task": "bare", "inference_id": new_id(), "kind": "thumb", "value": True}
    worlds = [serve(), serve()]
    assert [post(world, body).status_code for world in worlds] == [202, 202]
    first, second = (world.events(Feedback, 1)[0] for world in worlds)
    if age_h:
        assert (now() - first.at).total_seconds() < 3600
    else:
        assert first.to_bytes() == second.to_bytes()
        assert round(first.at.timestamp() * 1000) == made_ms


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("task", {"task": None}),
        ("task", {"task": "nothing"}),
        ("task", {"task": 1}),
        ("inference_id", {"inference_id": None}),
        ("inference_id", {"inference_id": "12"}),
        ("kind", {"kind": None}),
        ("kind", {"kind": "love"}),
        ("value", {"value": None}),
        ("value", {"value": "yes"}),
        ("value", {"kind": "rating", "value": 2}),
        ("value", {"kind": "comment", "value": ""}),
        ("compared_with", {"compared_with": "01930000-0000-7000-8000-000000000000"}),
        ("compared_with", {"kind": "preference", "value": "this"}),
        ("id", {"id": "c56a4180-65aa-42ec-a945-5fd21dec0538"}),
        ("user", {"user": 5}),
        ("tags.a", {"tags": {"a": 1}}),
        ("colour", {"colour": "red"}),
    ],
)
def test_every_refused_feedback_names_its_field(refusing: Any, field: str, changes: dict[str, Any]) -> None:
    """400 in OpenAI's shape, the field in `param` and in the sentence; nothing is published."""
    body = {"task": "bare", "inference_id": new_id(), "kind": "thumb", "value": True} | changes
    response = post(refusing, body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == field
    assert field in error["message"]
    assert refusing.publisher.events == []


def test_a_full_queue_is_told_to_who_waits_for_the_answer(serve: Any) -> None:
    """Feedback and events that cannot be queued are refused with 503, so the sender may try again; nothing is kept."""
    publisher = MemoryPublisher(queue_records=0)
    world = serve(publisher=publisher)
    body = {"id": new_id(), "task": "bare", "inference_id": new_id(), "kind": "thumb", "value": True}
    assert post(world, body).status_code == 503
    response = post(world, [inference()], "/v1/events")
    assert (response.status_code, response.json()["accepted"]) == (503, 0)
    answer = httpx.post(f"{world.url}/v1/chat/completions", json={"model": "bare", "messages": HELLO})
    assert answer.status_code == 200  # the user is never made to wait for Kafka
    world.await_metric('ratchet_events_dropped_total{topic="inference"} 1.0')
    publisher._queue_records = 100
    assert post(world, body).status_code == 202
    world.await_metric('ratchet_events_published_total{topic="feedback"} 1.0')


@pytest.mark.parametrize("ndjson", [False, True])
def test_good_events_are_kept_and_bad_ones_named(world: Any, ndjson: bool) -> None:
    """One request with good and bad events: 400 with index, field and reason of each bad one; good ones are taken."""
    good, other = inference(), inference(source=None)
    feedback = {"schema": "feedback.v1", "id": new_id(), "at": "2026-11-01T12:00:00Z", "task": "support"}
    feedback |= {"inference_id": good["id"], "kind": "thumb", "value": True}
    items: list[Any] = [good, inference(latency_ms=-1), feedback, 5, {"schema": "score.v1"}, other, inference(at=None)]
    if ndjson:
        response = httpx.post(f"{world.url}/v1/events", content="\n".join([*map(json.dumps, items), "{oops"]))
    else:
        response = post(world, items, "/v1/events")
    assert response.status_code == 400
    body = response.json()
    assert body["accepted"] == 3
    bad = [(error["index"], error["field"]) for error in body["errors"]]
    assert bad == [(1, "latency_ms"), (3, "event"), (4, "schema"), (6, "at")] + [(7, "event")] * ndjson
    assert all(error["reason"] for error in body["errors"])
    assert [event.id for event in world.events(Inference, 2)] == [good["id"], other["id"]]
    assert world.events(Feedback, 1)[0].source == "http"
    assert post(world, {"inference_id": good["id"], "kind": "thumb", "value": False}).status_code == 202


def test_all_good_events_are_202(world: Any) -> None:
    """A request of good events is accepted with their count."""
    response = post(world, [inference(), inference()], "/v1/events")
    assert (response.status_code, response.json()) == (202, {"accepted": 2})


@pytest.mark.parametrize("raw", ["", "  ", "[]", "[{", "\x00"])
def test_a_body_without_events_is_refused(refusing: Any, raw: str) -> None:
    """No events, or no JSON: 400."""
    response = httpx.post(f"{refusing.url}/v1/events", content=raw)
    assert response.status_code == 400

"""The app's client against a gateway over real HTTP."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.infra.clock import new_id
from ratchet.infra.keys import KeyFile, Keyring
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Feedback, Inference
from ratchet.schemas.ids import hash_user
from ratchet.services.client import AsyncClient, Client, Rejected

EXAMPLE = Path(__file__).parents[4] / "examples" / "log.py"
CALL: dict[str, Any] = {"model": "m", "latency_ms": 5, "messages": [{"role": "user", "content": "Hi"}], "content": "Yo"}


def test_feedback_on_a_served_answer_needs_its_id_alone(world: Any) -> None:
    """The gateway knows the task, hashes the user, and keeps the id that the call gave."""
    asked = httpx.post(f"{world.url}/v1/chat/completions", json={"model": "support", "messages": CALL["messages"]})
    inference_id = asked.headers["x-ratchet-inference-id"]
    with Client(f"{world.url}/v1") as client:
        id = client.feedback(inference_id, thumb=False, user="ann", tags={"page": "home"})
    (event,) = world.events(Feedback, 1)
    assert (event.id, event.inference_id, event.task) == (id, inference_id, "support")
    assert (event.kind, event.value, event.user, event.tags) == ("thumb", False, hash_user("ann"), {"page": "home"})


def test_a_call_is_logged_as_it_was_said(world: Any) -> None:
    """An app's own call becomes the inference it described, and feedback on it finds its task."""
    with Client(world.url) as client:
        id = client.log_inference(**CALL, task="bare", user="ann", prompt_tokens=7, params={"top_p": 1})
        client.feedback(id, outcome=True)
    (event,) = world.events(Inference, 1)
    assert (event.id, event.task, event.base_model, event.adapter) == (id, "bare", "m", "base")
    assert (event.request.messages, event.request.params) == (CALL["messages"], {"top_p": 1})
    assert (event.response.content, event.prompt_tokens, event.user) == ("Yo", 7, hash_user("ann"))
    assert world.events(Feedback, 1)[0].task == "bare"


def test_good_events_are_kept_and_bad_ones_told(serve: Any, tmp_path: Path) -> None:
    """Of one batch, what is another tenant's is refused by its id and reason, and the rest is the key's tenant's."""
    file = KeyFile(tmp_path / "keys.json")
    _, secret = file.create("app", "acme", ("ingest",), datetime.now(UTC), None)
    world = serve(keys=Keyring(file))
    heard: list[Rejected] = []
    with Client(world.url, api_key=secret, task="support", on_error=heard.append) as client:
        first = client.log_inference(**CALL)
        whole = world_event(tenant="other")
        bad = client.emit(whole)
        last = client.emit(world_event())
        opinion = client.feedback(first, thumb=True)
        assert client.flush() == 0
        assert (client.accepted, client.refused, client.dropped) == (2, 2, 0)
    assert [event.id for event in world.events(Inference, 2)] == [first, last]
    assert {event.tenant for event in world.events(Inference, 2)} == {"acme"}
    assert [one.id for one in heard] == [bad, opinion]
    assert heard[0].reason == "tenant: not the key's; allowed: 'acme', or none"
    assert "lacks the scope 'feedback'" in heard[1].reason


def world_event(**fields: str) -> dict[str, Any]:
    """A whole event as JSON has it."""
    return {
        "schema": "inference.v1", "id": new_id(), "at": "2026-11-25T12:00:00Z", "adapter": "base", "stage": "stable",
        "base_model": "m", "request": {"prompt": "Hi"}, "status": "ok", "latency_ms": 5, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"rating": 2}, "value 2 does not fit kind 'rating'; allowed: a number from 0 to 1"),
        ({"thumb": True, "rating": 1}, "thumb, rating given; allowed: exactly one of thumb, rating"),
        ({"preference": "this"}, "compared_with goes with kind 'preference'"),
        ({"thumb": True, "compared_with": new_id()}, "compared_with goes with kind 'preference'"),
        ({"thumb": True, "tags": {"a": 1}}, "tags.a: Input should be a valid string (got 1)"),
        ({"thumb": True, "task": "No Name"}, "task: allowed: lower-case letters, digits and hyphens"),
    ],
)
@pytest.mark.parametrize("way", [Client, Client.to_kafka])
def test_a_mistake_is_heard_at_the_call(way: Any, said: dict[str, Any], says: str) -> None:
    """Wrong feedback is refused where it is said, by field, value and what is allowed; nothing is queued."""
    client = way("http://127.0.0.1:1" if way is Client else "127.0.0.1:1", task="support")
    with pytest.raises(InvalidEvent) as caught:
        client.feedback(new_id(), **said)
    assert says in str(caught.value)
    assert client.waiting == 0


def test_wrong_calls_and_arguments() -> None:
    """Fields, keywords, addresses and options are each refused by name."""
    client = Client("http://127.0.0.1:1")
    for call, error, says in (
        (lambda: client.log_inference(**CALL), InvalidEvent, "task: Field required"),
        (lambda: client.log_inference(**CALL | {"latency_ms": -1}, task="t"), InvalidEvent, "latency_ms: "),
        (lambda: client.log_inference(model="m", latency_ms=1, task="t"), InvalidEvent, "one of messages, prompt"),
        (lambda: client.log_inference(**CALL, task="t", tags={"a": "\ud800"}), InvalidEvent, "tags"),
        (lambda: client.emit({"schema": "score.v1"}), InvalidEvent, "allowed: inference.v1, feedback.v1"),
        (lambda: client.feedback(thumb=True), InvalidEvent, "neither inference_id nor conversation_id"),
        (lambda: client.feedback(new_id(), thum=True), TypeError, "'thum' is no keyword here"),  # type: ignore[call-arg]
        (lambda: Client("gateway:8080"), ValueError, "url 'gateway:8080'; allowed: http"),
        (lambda: Client("http://g", queue_bytes=10), ValueError, "queue_bytes 10; allowed: a number from 8388608 up"),
        (lambda: Client("http://g", queue=10), TypeError, "'queue' is no option"),  # type: ignore[call-arg]
        (lambda: Client("http://g", api_key="rk_ü"), ValueError, "api_key: not shown"),
        (lambda: Client.to_kafka("b:1").feedback(new_id(), thumb=True), InvalidEvent, "task: missing"),
    ):
        with pytest.raises(error, match=says.replace("(", "\\(")):
            call()


def test_the_event_loop_goes_on_while_a_call_waits_for_room(serve: Any) -> None:
    """While a call waits for room in a full queue other coroutines run, and then the event is dropped."""

    async def main() -> tuple[int, int, int]:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(turn())
        async with AsyncClient("http://127.0.0.1:1", task="support", queue_events=1, wait_s=0.1) as client:
            await client.log_inference(**CALL)
            await client.log_inference(**CALL)
            dropped = client.dropped
            left = await client.close(0.1)
        other.cancel()
        return turns, dropped, left

    turns, dropped, left = asyncio.run(main())
    assert turns > 10
    assert (dropped, left) == (1, 1)


async def test_async_feedback_arrives(world: Any) -> None:
    """The asynchronous client's calls give ids at once, and its block ends with everything settled."""
    async with AsyncClient(world.url, task="support") as client:
        inference = await client.log_inference(**CALL)
        opinion = await client.feedback(inference, comment="fine")
        assert await client.emit(world_event()) != inference
    assert (client.accepted, client.waiting) == (3, 0)
    assert [event.id for event in await asyncio.to_thread(world.events, Feedback, 1)] == [opinion]


def test_the_example_runs(world: Any) -> None:
    """The example for apps with a model of their own, whose lines the README shows, does what it says."""
    env = os.environ | {"GATEWAY": world.url}
    done = subprocess.run([sys.executable, EXAMPLE], env=env, capture_output=True, text=True, timeout=60)
    assert "2 taken, 0 refused, 0 dropped" in done.stdout, done.stdout + done.stderr

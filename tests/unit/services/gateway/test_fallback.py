"""When model servers fail: who answers instead, and what the events say of it."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import openai
import pytest

from ratchet.schemas.events import Inference

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
STABLE, CANDIDATE = "support@v1-aaaaaaaa", "support@v2-bbbbbbbb"


def ask(world: Any, **body: Any) -> httpx.Response:
    """One chat request over plain HTTP."""
    return httpx.post(
        f"{world.url}/v1/chat/completions", json={"model": "support", "messages": HELLO} | body, timeout=10
    )


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("fault", [500, 503, 404, 429, "drop", "garbage"])
def test_a_failed_candidate_falls_back_to_stable(world: Any, fault: int | str) -> None:
    """The user gets stable's answer; the candidate's failure is an event of its own that counts against it."""
    rollout = world.roll_out(weight_bp=10_000)
    world.peer.faults[CANDIDATE] = fault
    response = ask(world)
    assert response.status_code == 200
    assert (response.headers["x-ratchet-adapter"], response.headers["x-ratchet-stage"]) == (STABLE, "fallback")
    failed, answered = world.events(Inference, 2)
    assert (failed.adapter, failed.stage, failed.status) == (CANDIDATE, "canary", "error")
    assert failed.error
    assert failed.response is None
    assert answered.id == response.headers["x-ratchet-inference-id"] != failed.id
    assert (answered.stage, answered.status, answered.rollout_id) == ("fallback", "ok", rollout.rollout_id)
    assert failed.rollout_id == rollout.rollout_id
    assert failed.tags == {"answered_by": answered.id}
    assert answered.tags == {"fallback_from": CANDIDATE}


@pytest.mark.parametrize("stream", [False, True])
def test_the_base_model_is_the_last_resort(world: Any, stream: bool) -> None:
    """With both adapters broken the base model answers, with the task's system prompt."""
    world.roll_out(weight_bp=10_000)
    world.peer.faults = {CANDIDATE: 500, STABLE: "garbage" if not stream else 500}
    response = ask(world, stream=stream)
    assert response.headers["x-ratchet-adapter"] == "base"
    assert world.peer.requests[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [event.status for event in world.events(Inference, 3)] == ["error", "error", "ok"]


def test_nobody_answers_is_502(world: Any) -> None:
    """Only then: 502 in OpenAI's shape, with the headers, and every attempt logged."""
    world.roll_out(weight_bp=10_000)
    world.peer.faults = dict.fromkeys(("tiny", STABLE, CANDIDATE), 500)
    with (
        openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(model="support", messages=HELLO)
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_failed"
    assert "fault 500" in caught.value.message
    events = world.events(Inference, 3)
    assert [event.stage for event in events] == ["canary", "fallback", "fallback"]
    assert events[-1].id == caught.value.response.headers["x-ratchet-inference-id"]


def test_the_clients_own_retries_reach_the_model_again(world: Any) -> None:
    """The official client retries a 502 by itself; each try is a request of its own."""
    world.peer.faults["tiny"] = 500
    with (
        openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=1) as client,
        pytest.raises(openai.InternalServerError),
    ):
        client.chat.completions.create(model="support", messages=HELLO)
    assert len({event.id for event in world.events(Inference, 2)}) == 2


@pytest.mark.parametrize("status", [400, 422])
def test_the_clients_fault_is_no_fallback(world: Any, status: int) -> None:
    """What the model server calls a bad request comes back with its status and words, and blames no adapter."""
    world.roll_out(weight_bp=10_000)
    world.peer.faults[CANDIDATE] = status
    response = ask(world)
    assert response.status_code == status
    assert response.json()["error"]["message"] == f"fault {status}"
    assert response.headers["x-ratchet-adapter"] == CANDIDATE
    assert len(world.peer.requests) == 1
    assert world.publisher.events == []


def test_a_pinned_adapter_has_no_fallback(world: Any) -> None:
    """Who pins an adapter wants that one or an error."""
    world.peer.faults[STABLE] = 500
    response = ask(world, model=STABLE)
    assert response.status_code == 502
    (event,) = world.events(Inference, 1)
    assert (event.stage, event.status) == ("pinned", "error")


def test_a_silent_model_is_a_timeout(serve: Any) -> None:
    """An adapter that says nothing for the timeout is left for the next one, and logged as timeout."""
    world = serve(upstream_timeout_s=0.3)
    world.roll_out(weight_bp=10_000)
    world.peer.faults[CANDIDATE] = "hang"
    assert ask(world).headers["x-ratchet-adapter"] == STABLE
    assert [event.status for event in world.events(Inference, 2)] == ["timeout", "ok"]


def test_a_dead_replica_is_skipped(serve: Any) -> None:
    """With one replica gone the other answers, without an event that would blame the adapter."""
    world = serve(upstreams=[closed_port(), closed_port()], poll_s=60)
    for _ in range(4):
        assert ask(world).status_code == 200
    events = world.events(Inference, 4)
    assert {(event.status, event.stage) for event in events} == {("ok", "stable")}


def test_no_model_server_at_all(serve: Any) -> None:
    """A model server that is away gives a clear 502 that says so."""
    world = serve()
    world.peer.faults["tiny"] = "drop"
    error = ask(world).json()["error"]
    assert error["code"] == "upstream_failed"
    assert "the connection ended before the answer did" in error["message"]


def test_a_candidate_that_fails_in_a_stream_before_the_first_chunk(world: Any) -> None:
    """A stream that has not begun falls back like any other request."""
    world.roll_out(weight_bp=10_000)
    world.peer.faults[CANDIDATE] = 500
    response = ask(world, stream=True)
    assert response.headers["x-ratchet-adapter"] == STABLE
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("fault", ["cut", "late"])
def test_a_stream_that_breaks_off_ends_with_an_error(world: Any, fault: str) -> None:
    """After the first byte there is no fallback: the client's SDK raises, and the event has what came."""
    world.roll_out(weight_bp=10_000)
    world.peer.faults[CANDIDATE] = fault
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        chunks = iter(client.chat.completions.create(model="support", messages=HELLO, stream=True))
        assert [next(chunks).choices[0].delta.content for _ in range(2)] == [None, "All"]
        with pytest.raises(openai.APIError):
            next(chunks)
    (event,) = world.events(Inference, 1)
    assert (event.adapter, event.status, event.response.content) == (CANDIDATE, "error", "All")


def test_a_hang_up_in_mid_stream_is_cancelled(world: Any) -> None:
    """A client that leaves in mid-stream stops the model, and the event has what it was sent."""
    world.hold()
    with (
        httpx.Client(timeout=10) as client,
        client.stream(
            "POST", f"{world.url}/v1/chat/completions", json={"model": "bare", "messages": HELLO, "stream": True}
        ) as response,
    ):
        for line in response.iter_lines():
            if "All" in line:
                break
    (event,) = world.events(Inference, 1)
    assert (event.status, event.response.content, event.stream) == ("cancelled", "All", True)
    assert world.peer.left.wait(10)

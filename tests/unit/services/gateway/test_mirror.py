"""Shadow copies: after the response, within their own limits, told apart from production."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ratchet.schemas.events import Inference, Shadow
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.mirror import Mirror
from ratchet.services.gateway.presence import Traffic
from ratchet.services.rules.circuit import Thresholds

CANDIDATE = "support@v2-bbbbbbbb"
STABLE = "support@v1-aaaaaaaa"


def ask(world: Any, **body: Any) -> httpx.Response:
    """One chat request over plain HTTP."""
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]} | body
    return httpx.post(f"{world.url}/v1/chat/completions", json=body, timeout=10)


@pytest.mark.parametrize("stream", [False, True])
def test_a_mirrored_request_is_a_shadow_event(world: Any, stream: bool) -> None:
    """The candidate gets the same request, whole even where the user streams, and its answer is a shadow event."""
    rollout = world.roll_out(weight_bp=0, mirror_bp=10_000)
    response = ask(world, stream=stream, temperature=0.1)
    (shadow,) = world.events(Shadow, 1)
    (event,) = world.events(Inference, 1)
    assert shadow.inference_id == event.id == response.headers["x-ratchet-inference-id"]
    assert (shadow.adapter, shadow.rollout_id, shadow.stream) == (CANDIDATE, rollout.rollout_id, False)
    assert shadow.request == event.request
    assert (shadow.response.content, shadow.completion_tokens) == ("All is well", 3)
    copy = world.peer.requests[-1]
    assert copy["model"] == CANDIDATE
    assert "stream" not in copy
    assert "stream_options" not in copy


@pytest.mark.parametrize("copies_wait", [False, True])
def test_copies_wait_behind_users_where_the_server_can(serve: Any, copies_wait: bool) -> None:
    """Only where servers schedule by priority do copies say that they may wait; the log is the user's request."""
    world = serve(copies_wait=copies_wait)
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    assert ask(world, priority=3).status_code == 200
    (shadow,) = world.events(Shadow, 1)
    asked, copy = world.peer.requests
    assert (asked["priority"], copy["priority"]) == (3, 1_000_000 if copies_wait else 3)
    assert shadow.request.params == {"priority": 3}


def test_a_failed_copy_is_an_error_of_the_shadow_alone(world: Any) -> None:
    """The candidate's failure on a copy is a shadow event with status error; the user's request is ok."""
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    world.peer.faults[CANDIDATE] = 500
    assert ask(world).status_code == 200
    (shadow,) = world.events(Shadow, 1)
    assert (shadow.status, shadow.response) == ("error", None)
    assert "fault 500" in shadow.error
    assert world.events(Inference, 1)[0].status == "ok"


def test_a_request_that_nobody_answers_is_mirrored_too(world: Any) -> None:
    """Were requests that stable failed left out, stable would never fail in a comparison with copies."""
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    world.peer.faults |= {STABLE: 500, "tiny": 500}
    assert ask(world).status_code == 502
    (shadow,) = world.events(Shadow, 1)
    first, last = world.events(Inference, 2)
    assert (first.stage, last.stage, last.status) == ("stable", "fallback", "error")
    assert (shadow.inference_id, shadow.status) == (last.id, "ok")


def test_mirrors_never_hold_users_up_and_give_way_under_load(serve: Any) -> None:
    """With every copy stuck, users are answered all the same, and copies above the limits are left out, counted."""
    world = serve(mirror_concurrency=1, mirror_waiting=1)
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    release = world.hold(CANDIDATE)
    for _ in range(5):
        assert ask(world).status_code == 200
    world.events(Inference, 5)
    world.await_metric("ratchet_mirrors_skipped_total 3.0")
    world.await_metric("ratchet_mirrors_in_flight 2.0")
    release()
    assert {shadow.status for shadow in world.events(Shadow, 2)} == {"ok"}


def test_large_copies_give_way_sooner(serve: Any) -> None:
    """The bodies of waiting copies are bounded together: a large one that does not fit any more is left out."""
    world = serve(mirror_concurrency=1, mirror_bytes=50_000)
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    release = world.hold(CANDIDATE)
    large = [{"role": "user", "content": "x" * 20_000}]
    for messages in (large, large, large):
        assert ask(world, messages=messages).status_code == 200
    world.await_metric("ratchet_mirrors_skipped_total 1.0")
    assert ask(world).status_code == 200, "a small one still fits"
    world.await_metric("ratchet_mirrors_in_flight 3.0")
    release()
    world.events(Shadow, 3)
    world.await_metric("ratchet_mirrors_in_flight 0.0")
    assert ask(world, messages=large).status_code == 200
    world.events(Shadow, 4)


def test_copies_are_left_out_while_every_server_is_left_alone(serve: Any) -> None:
    """A copy whose turn comes while no server is well is no observation of the candidate, but counted as left out."""
    limits = Thresholds(failures=1, cooldown_s=1000, longest_cooldown_s=1000)
    world = serve(thresholds=limits, monotonic=lambda: 0.0, mirror_concurrency=1)
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    release = world.hold(CANDIDATE)
    for _ in range(2):
        assert ask(world).status_code == 200
    world.peer.faults["tiny"] = 503
    assert ask(world, model="bare").status_code == 502
    release()
    world.await_metric("ratchet_mirrors_skipped_total 1.0")
    assert world.events(Shadow, 1)[0].status == "ok"


def test_a_silent_candidate_is_a_timeout_of_the_shadow(serve: Any) -> None:
    """A copy that is never answered ends as a shadow event with status timeout."""
    world = serve(upstream_timeout_s=0.5)
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    world.peer.faults[CANDIDATE] = "hang"
    ask(world)
    assert world.events(Shadow, 1)[0].status == "timeout"


def test_nothing_is_mirrored_that_should_not_be(world: Any) -> None:
    """Pinned requests and requests that a server refused as wrong have no copy."""
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    ask(world, model=STABLE)
    world.peer.faults = {STABLE: 400}
    assert ask(world).status_code == 400
    assert [body["model"] for body in world.peer.requests].count(CANDIDATE) == 0


async def test_copies_that_waited_past_their_rollout_are_left_out() -> None:
    """After an abort no copy that was still in the queue reaches the candidate; it is counted as left out."""
    metrics, asked = Metrics(), []
    sent: Any = None
    mirror = Mirror(
        sent,
        sent,
        metrics,
        sent,
        Traffic(),
        concurrency=1,
        waiting=5,
        most_bytes=1000,
        wanted=lambda task, rollout: asked.append((task, rollout)),
    )
    for _ in range(3):
        mirror.send(SimpleNamespace(task="support", size=10), CANDIDATE, "i", "r")  # type: ignore[arg-type]
    await mirror.close(5)
    assert asked == [("support", "r")] * 3
    assert "ratchet_mirrors_skipped_total 3.0" in metrics.exposition().decode()

"""What a gateway says of itself: over real HTTP, and by its parts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from ratchet.infra.clock import new_id, now
from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.services.gateway import presence
from ratchet.services.gateway.presence import Presence, Traffic
from ratchet.services.gateway.routes import RoutingTables

STABLE, CANDIDATE = "support@v1-aaaaaaaa", "support@v2-bbbbbbbb"
PATIENCE_S = 10.0
CHAT = "/v1/chat/completions"
ASKED = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}


def said(world: Any) -> list[Gateway]:
    """What the gateway said so far."""
    return [event for event in world.publisher.events if isinstance(event, Gateway)]


def until(what: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_table_is_acknowledged_the_moment_it_takes_effect(serve: Any) -> None:
    """With its version and since when; before there is one the gateway says that it has none."""
    world = serve(name="gw:80:1")
    until(lambda: len(said(world)) == 1)
    assert (said(world)[0].gateway, said(world)[0].tables) == ("gw:80:1", {})
    table = world.roll_out(weight_bp=10_000)
    [_, acknowledged] = said(world)
    assert acknowledged.tables == {"support": 1}
    assert table.at <= acknowledged.since["support"] <= acknowledged.at
    world.routes.apply(table)  # read again after a lost connection: nothing took effect
    assert len(said(world)) == 2
    world.await_metric('ratchet_routing_table_version{task="support"} 1.0')


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_in_flight_is_said_by_adapter_until_its_end(serve: Any, stream: bool) -> None:
    """A stream counts until its last chunk; when an adapter was last routed to stays known."""
    world = serve(name="gw")
    world.roll_out(weight_bp=10_000)
    release = world.hold()
    asking = threading.Thread(target=lambda: httpx.post(world.url + CHAT, json=ASKED | {"stream": stream}))
    asking.start()
    until(lambda: len(world.peer.requests) == 1)
    begun = now()
    apply(world, 2)
    assert said(world)[-1].in_flight == {CANDIDATE: 1}
    release()
    asking.join()
    versions = count(3)

    def idle() -> bool:
        apply(world, next(versions))
        return said(world)[-1].in_flight == {}

    until(idle)  # a stream's connection is read to its end, which comes after the client's
    assert said(world)[-1].last_request.keys() == {CANDIDATE}
    assert said(world)[-1].last_request[CANDIDATE] <= begun


def test_copies_and_failed_tries_are_in_flight_too(serve: Any) -> None:
    """A mirrored copy that still runs keeps its adapter busy, though its user has the answer; a failure ends."""
    world = serve(name="gw")
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    world.peer.faults[STABLE] = 500
    release = world.hold(CANDIDATE)
    assert httpx.post(world.url + CHAT, json=ASKED).headers["x-ratchet-stage"] == "fallback"
    until(lambda: [body["model"] for body in world.peer.requests].count(CANDIDATE) == 1)
    apply(world, 2)
    assert said(world)[-1].in_flight == {CANDIDATE: 1}
    assert said(world)[-1].last_request.keys() == {STABLE, "base", CANDIDATE}
    release()


def test_it_says_how_it_stands_every_few_seconds_and_when_it_leaves(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last word is that it left; a table that comes after that is not acknowledged."""
    monkeypatch.setattr(presence, "EVERY_S", 0.02)
    world = serve(name="gw")
    until(lambda: len(said(world)) >= 3)
    world.stop()
    assert [event.state for event in said(world)][:-1] == ["up"] * (len(said(world)) - 1)
    assert said(world)[-1].state == "left"
    spoken = len(said(world))
    world.roll_out(weight_bp=0)
    assert len(said(world)) == spoken


def test_nothing_is_acknowledged_before_the_tables_were_read_to_their_end() -> None:
    """The history of a year that is read at the start took effect for nobody."""
    routes, emitted, known = RoutingTables(), list[Event](), False
    spoken = Presence("gw", routes, Traffic(), emitted.append, ready=lambda: known, now=now, new_id=new_id)
    began = {"id": new_id(), "at": now(), "rollout_id": new_id(), "stage_started_at": now(), "stable": STABLE}
    routes.apply(Rollout(task="support", version=1, status="promoted", stage="", action="promote", **began))
    spoken.say()
    assert emitted == []
    known = True
    spoken.say()
    assert [event.tables for event in emitted if isinstance(event, Gateway)] == [{"support": 1}]


def test_a_request_that_names_its_adapter_was_routed_by_no_table(serve: Any) -> None:
    """It is in flight, and must be waited for, but says nothing of when a table last sent somebody there."""
    world = serve(name="gw")
    world.roll_out(weight_bp=0)
    release = world.hold()
    asking = threading.Thread(target=lambda: httpx.post(world.url + CHAT, json=ASKED | {"model": CANDIDATE}))
    asking.start()
    until(lambda: len(world.peer.requests) == 1)
    apply(world, 2)
    assert (said(world)[-1].in_flight, said(world)[-1].last_request) == ({CANDIDATE: 1}, {})
    release()
    asking.join()


def test_adapters_of_long_ago_are_forgotten() -> None:
    """Else what a gateway says of itself would grow with every adapter that ever was."""
    traffic, begun = Traffic(), now()
    for day in range(3):
        traffic.begin(f"support@v{day + 1}-aaaaaaaa", begun + timedelta(days=day))
        traffic.end(f"support@v{day + 1}-aaaaaaaa")
    traffic.forget(begun + timedelta(days=2))
    assert traffic.last.keys() == {"support@v2-aaaaaaaa", "support@v3-aaaaaaaa"}
    assert traffic.in_flight == {}


def apply(world: Any, version: int) -> None:
    """Let a newer table take effect: a word is said."""
    known = world.routes.get("support")
    assert known is not None
    world.routes.apply(known.model_copy(update={"version": version}))

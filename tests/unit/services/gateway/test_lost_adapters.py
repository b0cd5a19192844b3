"""Replicas that do not have an adapter, against real model servers: asked for it no more, and others instead."""

from __future__ import annotations

from typing import Any

import httpx

from ratchet.schemas.events import Inference
from ratchet.services.rules.circuit import Thresholds

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
CANDIDATE = "support@v2-bbbbbbbb"
CLIENT = httpx.Client(timeout=10)
FAR = 1000.0
"""Seconds between the gateway's own looks at the model servers: more than a test takes."""
TOUCHY = Thresholds(failures=1, minimum=1)


def ask(world: Any, **body: Any) -> httpx.Response:
    """One chat request over plain HTTP."""
    body = {"model": "support", "messages": HELLO} | body
    return CLIENT.post(f"{world.url}/v1/chat/completions", json=body)


def seen(world: Any) -> None:
    """Have the gateway look at every model server now."""
    CLIENT.get(f"{world.url}/v1/models")


def well(world: Any, server: Any) -> bool:
    """Whether a model server's circuit is closed."""
    name = server.url.removeprefix("http://")
    return any(
        line.startswith("ratchet_upstream_state") and name in line and line.endswith(" 0.0")
        for line in CLIENT.get(f"{world.url}/metrics").text.splitlines()
    )


def pinned(world: Any) -> httpx.Response:
    """One request for the candidate alone."""
    return ask(world, model=CANDIDATE)


def asked_for(server: Any, model: str) -> int:
    """How often a model server was asked for a model."""
    return [body["model"] for body in server.requests].count(model)


def test_a_replica_that_lost_an_adapter_is_not_asked_for_it(serve: Any, model_server: Any) -> None:
    """One that was restarted says 404 once: another one answers, its circuit notes nothing, and others' requests go on.

    It is asked again as soon as a look at its models shows the adapter.
    """
    restarted = model_server()
    world = serve(others=[restarted], thresholds=TOUCHY, poll_s=FAR)
    world.roll_out(weight_bp=10_000)
    seen(world)
    restarted.models.remove(CANDIDATE)
    assert [ask(world).headers["x-ratchet-stage"] for _ in range(8)] == ["canary"] * 8
    assert asked_for(restarted, CANDIDATE) == 1
    assert {event.status for event in world.events(Inference, 8)} == {"ok"}
    assert well(world, restarted)
    for _ in range(4):
        assert ask(world, model="bare").status_code == 200
    assert asked_for(restarted, "tiny") == 2

    restarted.models.append(CANDIDATE)
    assert pinned(world).status_code == 200
    assert asked_for(restarted, CANDIDATE) == 1
    seen(world)
    for _ in range(4):
        assert pinned(world).status_code == 200
    assert asked_for(restarted, CANDIDATE) == 3


def test_an_adapter_that_no_replica_has_is_looked_for_before_it_is_given_up(serve: Any, model_server: Any) -> None:
    """Asked for once everywhere, then only looked for: 404 in the end, and served in the moment that one has it."""
    other = model_server()
    world = serve(others=[other], thresholds=TOUCHY, poll_s=FAR)
    for server in (other, world.peer):
        server.models.remove(CANDIDATE)
    for _ in range(6):
        refused = pinned(world)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert [asked_for(server, CANDIDATE) for server in (other, world.peer)] == [1, 1]
    assert well(world, other)
    assert well(world, world.peer)
    world.roll_out(weight_bp=10_000)
    assert ask(world).headers["x-ratchet-stage"] == "fallback"
    other.models.append(CANDIDATE)
    assert ask(world).headers["x-ratchet-stage"] == "canary"
    assert asked_for(world.peer, CANDIDATE) == 1


def test_a_404_that_is_about_something_else_is_not_remembered(serve: Any) -> None:
    """A path that the model server does not know says nothing of the model."""
    world = serve(thresholds=TOUCHY, poll_s=FAR)
    world.peer.faults["tiny"] = [404]
    assert ask(world, model="bare").status_code == 502
    assert ask(world, model="bare").status_code == 200


def test_only_a_replica_that_answers_knows_that_it_lacks_an_adapter(serve: Any, model_server: Any) -> None:
    """One has it not and the other is out of reach: nobody can say that there is no such adapter."""
    away = model_server(faults={CANDIDATE: "drop"})
    world = serve(others=[away], poll_s=FAR)
    world.peer.models.remove(CANDIDATE)
    assert [pinned(world).status_code for _ in range(2)] == [502, 502]
    assert asked_for(world.peer, CANDIDATE) == 1

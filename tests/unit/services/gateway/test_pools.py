"""Several pools: a request goes where its adapter's base model is, under the name that its servers know."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ratchet.infra.clock import new_id, now
from ratchet.schemas.events import Adapter, Inference, Shadow
from ratchet.services.gateway.manifests import Manifests

STABLE, CANDIDATE = "support@v1-aaaaaaaa", "support@v2-bbbbbbbb"
TUNED = "ft:big-2026:acme::abc123"
KEY = "sk-provider"


def manifest(name: str, base_model: str, served_as: str = "") -> Adapter:
    """The registry's record of an adapter."""
    return Adapter.model_validate(
        {
            "id": new_id(),
            "at": now(),
            "task": "support",
            "name": name,
            "label": name,
            "status": "registered",
            "method": "dpo",
            "base_model": base_model,
            "path": f"/adapters/{name}",
            "served_as": served_as,
            "weights_sha256": "0" * 64,
            "dataset": "d",
            "dataset_sha256": "0" * 64,
            "job_id": new_id(),
        }
    )


@pytest.fixture
def manifests() -> Manifests:
    """The stable adapter belongs to the first pool's base model, the candidate to another."""
    known = Manifests()
    known.apply(manifest(STABLE, "tiny"))
    known.apply(manifest(CANDIDATE, "next"))
    return known


@pytest.fixture
def both(serve: Any, model_server: Any, manifests: Manifests) -> tuple[Any, Any]:
    """A gateway on two pools of vLLM, and the second pool's server."""
    second = model_server()
    second.models = ["next", CANDIDATE]
    return serve(elsewhere={"next": second}, manifests=manifests), second


@pytest.fixture
def provided(serve: Any, model_server: Any) -> tuple[Any, Any]:
    """A gateway whose candidate a provider serves, and the provider."""
    provider, known = model_server(), Manifests()
    provider.models = ["big-2026", TUNED]
    known.apply(manifest(STABLE, "tiny"))
    known.apply(manifest(CANDIDATE, "big-2026", TUNED))
    world = serve(elsewhere={"big-2026": provider}, providers={"big-2026": KEY}, manifests=known, copies_wait=True)
    return world, provider


def ask(world: Any, **body: Any) -> httpx.Response:
    """One chat request over plain HTTP."""
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]} | body
    return httpx.post(f"{world.url}/v1/chat/completions", json=body, timeout=10)


def test_each_arm_is_asked_where_its_base_model_is(both: tuple[Any, Any]) -> None:
    """The candidate's requests go to its own pool, a pinned stable adapter's to the first; events name the base."""
    world, second = both
    world.roll_out(weight_bp=10_000)
    assert ask(world).headers["x-ratchet-adapter"] == CANDIDATE
    assert ask(world, model=STABLE).status_code == 200
    assert [request["model"] for request in second.requests] == [CANDIDATE]
    assert [request["model"] for request in world.peer.requests] == [STABLE]
    events = world.events(Inference, 2)
    assert {(event.adapter, event.base_model) for event in events} == {(CANDIDATE, "next"), (STABLE, "tiny")}


def test_a_pool_that_fails_falls_back_to_the_first(both: tuple[Any, Any]) -> None:
    """The stable adapter answers, and the failed attempt counts against the candidate under its own base model."""
    world, second = both
    second.faults[CANDIDATE] = 500
    world.roll_out(weight_bp=10_000)
    response = ask(world)
    assert (response.status_code, response.headers["x-ratchet-adapter"]) == (200, STABLE)
    failed, answered = sorted(world.events(Inference, 2), key=lambda event: event.status != "error")
    assert (failed.adapter, failed.base_model, failed.status) == (CANDIDATE, "next", "error")
    assert (answered.adapter, answered.base_model, answered.stage) == (STABLE, "tiny", "fallback")


@pytest.mark.parametrize("stream", [False, True])
def test_a_providers_model_is_asked_by_its_own_name_with_its_key(provided: tuple[Any, Any], stream: bool) -> None:
    """The provider sees its model's id and its key and nothing that it would refuse; ours sees neither."""
    world, provider = provided
    world.roll_out(weight_bp=10_000)
    response = ask(world, stream=stream, priority=3)
    assert (response.status_code, response.headers["x-ratchet-adapter"]) == (200, CANDIDATE)
    (request,) = provider.requests
    assert request["model"] == TUNED
    assert "priority" not in request
    assert set(provider.keys) == {f"Bearer {KEY}"}
    (event,) = world.events(Inference, 1)
    assert (event.adapter, event.base_model) == (CANDIDATE, "big-2026")
    ask(world, model=STABLE)
    assert set(world.peer.keys) == {""}


def test_a_provider_gets_copies_too(provided: tuple[Any, Any]) -> None:
    """In shadow its model is asked by its own name, without vLLM's low priority; the event has our name for it."""
    world, provider = provided
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    assert ask(world).status_code == 200
    (shadow,) = world.events(Shadow, 1)
    assert (shadow.adapter, shadow.base_model, shadow.status) == (CANDIDATE, "big-2026", "ok")
    (copy,) = provider.requests
    assert (copy["model"], "priority" in copy) == (TUNED, False)


def test_models_are_listed_by_our_names(provided: tuple[Any, Any]) -> None:
    """Of a provider's models only ours appear, under our names."""
    world, _ = provided
    names = [card["id"] for card in httpx.get(f"{world.url}/v1/models").json()["data"]]
    assert names == ["bare", "support", STABLE, CANDIDATE]


def test_the_first_pool_says_whether_the_gateway_is_ready(both: tuple[Any, Any]) -> None:
    """Every fallback ends there: another pool that is away makes nothing unready, the first one does."""
    world, second = both
    second.away = True
    world.await_metric('ratchet_upstream_state{replica="' + second.url + '"} 2.0')
    assert httpx.get(f"{world.url}/readyz").status_code == 200
    second.away, world.peer.away = False, True
    world.await_metric('ratchet_upstream_state{replica="' + world.peer.url + '"} 2.0')
    assert "model server" in httpx.get(f"{world.url}/readyz").json()["missing"]

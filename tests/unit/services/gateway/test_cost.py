"""What the gateway's calls cost, in their events and in its metrics."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ratchet.schemas.events import Inference, Shadow
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.pricing import Price
from ratchet.services.client import Client

PRICES = {"tiny": Price(prompt_per_million=1.0, completion_per_million=3.0)}
OWN = TaskPolicy(price=Price(prompt_per_million=10.0, completion_per_million=30.0))


def ask(world: Any, model: str, **body: Any) -> httpx.Response:
    """One chat request; the model server counts 11 and 3 tokens."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]} | body
    return httpx.post(f"{world.url}/v1/chat/completions", json=body, timeout=10)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_and_copies_have_their_cost(serve: Any, stream: bool) -> None:
    """An answer, streamed or whole, and the candidate's copy of it cost their tokens; the metrics sum them by stage."""
    world = serve(prices=PRICES)
    world.roll_out(weight_bp=0, mirror_bp=10_000)
    ask(world, "support", stream=stream)
    (event,), (shadow,) = world.events(Inference, 1), world.events(Shadow, 1)
    assert (event.cost_usd, shadow.cost_usd) == (pytest.approx(20e-6), pytest.approx(20e-6))
    labels = f'adapter="{shadow.adapter}",stage="shadow",task="support"'
    world.await_metric(f"ratchet_cost_usd_total{{{labels}}} {shadow.cost_usd}")
    labels = f'adapter="{event.adapter}",stage="stable",task="support"'
    world.await_metric(f"ratchet_cost_usd_total{{{labels}}} {event.cost_usd}")


def test_unknown_is_not_zero(serve: Any) -> None:
    """A task's own price counts for it alone; without a price, or without an answer, there is no cost."""
    world = serve(tasks={"support": OWN, "bare": TaskPolicy()})
    ask(world, "support")
    ask(world, "bare")
    world.peer.faults["tiny"] = 500
    ask(world, "support")
    costs = [event.cost_usd for event in world.events(Inference, 3)]
    assert costs == [pytest.approx(200e-6), None, None]


def test_an_apps_own_calls_are_priced_but_not_counted_as_the_gateways(serve: Any) -> None:
    """A logged call of a priced model gets its cost, one that names its cost keeps it, and no metric has either."""
    world = serve(prices=PRICES)
    with Client(world.url, task="support") as client:
        for more in ({}, {"cost_usd": 0.5}):
            client.log_inference(model="tiny", latency_ms=1, prompt="x", prompt_tokens=1, completion_tokens=1, **more)  # type: ignore[arg-type]
    assert [event.cost_usd for event in world.events(Inference, 2)] == [pytest.approx(4e-6), 0.5]
    assert "ratchet_cost_usd_total{" not in httpx.get(f"{world.url}/metrics").text

"""Adapters where they are needed, gateways that follow, clocks that jump: what a controller waits for, and what not.

``traffic`` and ``replicas`` are the fixtures of this folder's conftest.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import Any

import pytest
from loop_place import Loop

from ratchet.schemas.errors import StoreError
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rollout_events import Gateway, Rollout


async def test_a_replica_that_answers_otherwise_holds_the_rollout_up(
    traffic: Any, replicas: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It lists the adapter and is something else under its name: named, and nothing starts, nor advances later."""
    loop, replicas[1].sure = Loop(traffic, replicas), -4.0
    loop.controller.receive(traffic.adapter(1))
    with caplog.at_level(logging.WARNING, "ratchet.controller"):
        assert await loop.tick() == []
    (told,) = caplog.messages
    assert f"at {replicas[1].url}: token 1, '{{', has log-probability -4.00, not -0.01" in told
    replicas[1].sure = -0.02
    (table,) = await loop.tick(1)
    assert table.action == "start"
    loop.asks("promote")
    await loop.tick(1)
    replicas[0].adapters.clear()
    replicas[0].sure = -4.0
    loop.healthy("stable", "canary")
    assert await loop.tick(100) == [], "restarted with something else: it is loaded again and not trusted"
    replicas[0].sure = -0.01
    (table,) = await loop.tick(1)
    assert (table.action, table.stage) == ("advance", "100%")


async def test_back_to_an_adapter_that_is_no_longer_resident(traffic: Any, replicas: list[Any]) -> None:
    """It is loaded and has answered everywhere before the table flips; one that cannot be loaded is refused by name."""
    loop = Loop(traffic, replicas)
    first = await loop.begin(1)
    for number in (2, 3, 4):
        loop.asks("promote", full=True)
        await loop.tick(1)
        await loop.begin(number)
    loop.asks("abort")
    await loop.tick(1)
    for replica in replicas:
        replica.adapters.pop(first.candidate)
    replicas[1].refuses = True
    loop.asks("undo", adapter=first.candidate)
    (table,) = await loop.tick(1)
    assert table.action == "refuse"
    assert f"{first.candidate} could not be loaded: {replicas[1].url} refused" in table.reason
    replicas[1].refuses = False
    loop.asks("undo", adapter=first.candidate)
    (table,) = await loop.tick(1)
    assert (table.action, table.stable) == ("undo", first.candidate)
    assert all(first.candidate in replica.adapters for replica in replicas)


async def test_nothing_advances_before_every_gateway_has_the_table(traffic: Any, replicas: list[Any]) -> None:
    """A gateway that is cut off keeps its last table: it holds the next step up, and an abort waits for nobody."""
    loop = Loop(traffic, replicas)
    shadow = await loop.begin()

    def says(name: str, version: int) -> None:
        word = {"id": traffic.new_id(loop.now), "at": loop.now, "gateway": name, "tables": {traffic.task: version}}
        loop.controller.receive(Gateway.model_validate(word))

    for name in ("one", "cut-off"):
        says(name, shadow.version)
    loop.asks("promote")
    (table,) = await loop.tick(1)
    says("one", table.version)
    loop.healthy("stable", "canary")
    assert [one.action for one in await loop.tick(100)] == ["prove"]
    decision = loop.controller.decisions[traffic.task]
    assert await loop.tick(1) == []
    assert "not acknowledged yet by cut-off" in loop.controller.decisions[traffic.task].reason, decision
    loop.asks("abort")
    (table,) = await loop.tick(1)
    assert table.action == "abort"
    says("one", table.version)
    await loop.tick(11)
    (alert,) = [event for event in loop.publisher.events if isinstance(event, Alert)]
    assert (alert.kind, alert.severity, alert.evidence["silent"]) == ("routing", "critical", ["cut-off"])


async def test_clocks_that_jump_decide_nothing(traffic: Any, replicas: list[Any]) -> None:
    """A year ahead and a day back: nothing is promoted without evidence, and the table stays what it was."""
    loop = Loop(traffic, replicas)
    await loop.begin()
    loop.asks("promote")
    (canary,) = await loop.tick(1)
    day = 86_400.0
    assert await loop.tick(-day) == []
    assert loop.state == canary
    loop.healthy("stable", "canary")
    assert await loop.tick(1) == [], "what is said of before the stage began is no evidence of it"
    (table,) = await loop.tick(365 * day)
    assert (table.action, table.weight_bp, table.stable) == ("pause", canary.weight_bp, "base")
    restarted = Loop(traffic, replicas)
    restarted.now = loop.now - timedelta(days=400)
    for one in loop.publisher.events:
        restarted.controller.receive(one)
    assert await restarted.tick() == []
    assert restarted.state == table


class Hangs:
    """A ClickHouse that answers no question until it is let go."""

    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()

    def query(self, name: str, /, **_: Any) -> list[dict[str, Any]]:
        """Wait, then refuse."""
        self.asked.set()
        self.answers.wait()
        raise StoreError(f"ClickHouse: {name}: timed out")


async def test_a_clickhouse_that_hangs_delays_no_abort(traffic: Any, replicas: list[Any]) -> None:
    """While a question of the gates hangs, what a person asks is carried out and published."""
    shadow = await Loop(traffic, replicas).begin()
    hanging, stop = Hangs(), asyncio.Event()
    loop = Loop(traffic, replicas, store=hanging)
    loop.controller.receive(shadow)
    running = asyncio.create_task(loop.controller.run(stop))
    await asyncio.to_thread(hanging.asked.wait)
    loop.asks("abort")
    while loop.state.status != "aborted":  # noqa: ASYNC110 - the controller has no event to wait for
        await asyncio.sleep(0.01)
    hanging.answers.set()
    stop.set()
    await running
    assert [table.action for table in loop.publisher.events if isinstance(table, Rollout)] == ["abort"]

"""Adapters where they are needed: confirmed by an answer, loaded before a person's flip.

``traffic`` and ``replicas`` are the fixtures of this folder's conftest.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from loop_place import Loop


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

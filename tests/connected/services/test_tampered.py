"""What the controller loads from: files that were changed are neither loaded nor routed to, absent ones are pulled."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.artifacts import ArtifactStore
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Operator
from ratchet.services.controller.controller import Controller
from ratchet.services.rules.placement import Placement
from ratchet.trainers.adapters.shelf import Shelf
from ratchet.trainers.registry import WEIGHTS


def controlled(traffic: Any, replicas: list[Any], shelf: Shelf) -> Controller:
    """A controller of the replicas that loads from a shelf."""
    publisher = MemoryPublisher(follow=lambda event: made.receive(event))
    made = Controller(
        store=traffic.store,
        publisher=publisher,
        replicas=VllmClient([replica.url for replica in replicas], timeout_s=5),
        placement=Placement(tuple(replica.url for replica in replicas)),
        folder=shelf.folder,
        tasks={traffic.task: TaskPolicy()},
        clock=lambda: traffic.start,
        new_id=traffic.new_id,
        interval_s=0.01,
    )
    return made


async def test_an_adapter_that_is_not_here_is_pulled_and_loaded(traffic: Any, replicas: list[Any]) -> None:
    """Published by another machine: the controller fetches it, checks it, and the replicas load that folder."""
    adapter = traffic.adapter(1)
    store = ArtifactStore(str(traffic.shelf / "store"))
    Shelf(traffic.shelf, store).push(adapter)
    away = adapter.model_copy(update={"path": "/another/machine"})
    home = traffic.shelf / "controller"
    controller = controlled(traffic, replicas, Shelf(home, store))
    controller.receive(away)
    (started,) = await controller.tick(traffic.start)
    assert (started.action, started.candidate) == ("start", adapter.name)
    assert [replica.adapters for replica in replicas] == [{adapter.name: str(home / "adapters" / adapter.name)}] * 2


async def test_a_tampered_adapter_is_never_served(
    traffic: Any, replicas: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by itself nor for a person does its rollout begin; with its own weights back it does."""
    controller = controlled(traffic, replicas, Shelf(traffic.shelf))
    adapter = traffic.adapter(1)
    weights = Path(adapter.path) / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[::-1])
    controller.receive(adapter)
    with caplog.at_level(logging.WARNING, "ratchet.controller"):
        assert await controller.tick(traffic.start) == []
    (told,) = caplog.messages
    assert f"{weights} was changed since it was registered: expected sha256 {adapter.weights_sha256}, found " in told
    body = {"id": traffic.new_id(), "at": traffic.start, "task": traffic.task, "verb": "start", "who": "ada"}
    controller.receive(Operator.model_validate(body | {"adapter": adapter.name}))
    (refused,) = await controller.tick(traffic.start)
    assert (refused.action, refused.stable, refused.candidate) == ("refuse", "base", None)
    assert "could not be loaded" in refused.reason
    assert [replica.loads for replica in replicas] == [[], []]
    weights.write_bytes(whole)
    (started,) = await controller.tick(traffic.start)
    assert (started.action, started.candidate) == ("start", adapter.name)
    assert [replica.loads for replica in replicas] == [[adapter.name]] * 2

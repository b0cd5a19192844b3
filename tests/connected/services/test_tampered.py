"""An adapter whose files were changed on disk: the controller neither loads it nor routes to it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.events import Operator
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.controller.controller import Controller
from ratchet.services.rules.placement import Placement
from ratchet.trainers.adapters.shelf import Shelf
from ratchet.trainers.registry import WEIGHTS


async def test_a_tampered_adapter_is_never_served(
    traffic: Any, replicas: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by itself nor for a person does its rollout begin; with its own weights back it does."""
    publisher = MemoryPublisher()
    controller = Controller(
        store=traffic.store,
        publisher=publisher,
        replicas=VllmClient([replica.url for replica in replicas], timeout_s=5),
        placement=Placement(tuple(replica.url for replica in replicas)),
        folder=Shelf(traffic.shelf).folder,
        tasks={traffic.task: TaskPolicy()},
        clock=lambda: traffic.start,
        new_id=traffic.new_id,
        interval_s=0.01,
    )
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

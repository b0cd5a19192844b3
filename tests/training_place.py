"""A home with a task, its pairs and what a training worker stands on; for the tests of the worker."""

from __future__ import annotations

import json
import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

from ratchet.infra import clock
from ratchet.infra.artifacts import ArtifactStore
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import ModelError
from ratchet.schemas.events import Training
from ratchet.schemas.policies import TaskPolicy
from ratchet.trainers.adapters.shelf import Shelf
from ratchet.trainers.bases import FIRST, Base, Serving
from ratchet.trainers.building import build
from ratchet.trainers.evaluation.evaluation import Around
from ratchet.trainers.evaluation.evaluator import Evaluator
from ratchet.trainers.worker import Worker

POLICY: dict[str, Any] = {
    "completion": "polite",
    "checks": [{"name": "polite", "kind": "regex", "pattern": "please"}],
    "training": {"lora_r": 4, "max_length": 128, "batch_size": 4, "retry_wait_s": 0.0},
}


@dataclass
class Replicas:
    """vLLM as far as loading goes."""

    away: bool = False
    loaded: dict[str, str] = field(default_factory=dict)

    def load_adapter(self, name: str, path: Path | str) -> None:
        if self.away:
            raise ModelError("vLLM at http://replica is away")
        self.loaded[name] = str(path)


def chat() -> AsyncOpenAI:
    """The real client, over a transport where every second answer says please."""

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(json.loads(request.content)["messages"][-1]["content"])
        message = {"role": "assistant", "content": "yes please" if number % 2 else "no"}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        return httpx.Response(200, json=body | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    return AsyncOpenAI(
        base_url="http://replica/v1",
        api_key="none",
        http_client=httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )


@dataclass
class Place:
    """A home, a task with pairs, and the parts of a worker."""

    store: Store
    home: Path
    model: Path
    task: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")
    replicas: Replicas = field(default_factory=Replicas)
    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    more: dict[str, Base] = field(default_factory=dict)
    """Other pools."""
    artifacts: str | None = None
    """Where what is registered is published."""

    def __post_init__(self) -> None:
        rows = "".join(
            json.dumps({"id": str(n), "messages": [{"role": "user", "content": str(n)}]}) + "\n" for n in range(10)
        )
        (self.home / "heldout.jsonl").write_text(rows)

    def pairs(self, n: int) -> None:
        self.store.insert_rows(
            "pairs_log",
            [
                {
                    "pair_id": f"{self.task}-{number}",
                    "task": self.task,
                    "at": "2026-11-01 00:00:00.000000",
                    "source": "correction",
                    "status": "built",
                    "split": "holdout" if number % 4 == 0 else "train",
                    "conversation_id": f"c{number}",
                    "prompt": json.dumps([{"role": "user", "content": f"ask {number}"}]),
                    "chosen": json.dumps([{"role": "assistant", "content": "yes"}]),
                    "rejected": json.dumps([{"role": "assistant", "content": "no way"}]),
                    "weight": 1.0,
                    "confidence": 1.0,
                    "votes": 1,
                    "event_ids": [],
                    "version": 1,
                }
                for number in range(n)
            ],
        )

    def worker(self, floor: float | None = None, python: str = sys.executable, **training: Any) -> Worker:
        """A worker of this place; ``floor`` is a gate on completion."""
        gates = [] if floor is None else [{"metric": "completion", "floor": floor, "min_n": 10}]
        more = {
            "evaluation": {"prompts": "heldout.jsonl", "gates": gates},
            "training": POLICY["training"] | training,
        }
        policy = TaskPolicy.model_validate(POLICY | more)
        bases = {FIRST: Base("tiny-llama", lambda: self.model, serving=Serving(self.replicas, chat))} | self.more
        return Worker(
            self.store,
            self.publisher,
            home=self.home,
            tasks={self.task: policy},
            bases=bases,
            build=lambda task, kind: build(self.store, self.home, task, clock.now(), kind=kind),
            evaluator=Evaluator(
                Around(self.store, self.home, bases, lambda adapter: Path(adapter.path), patience_s=0.0)
            ),
            push=Shelf(self.home, ArtifactStore(self.artifacts) if self.artifacts else None).push_registered,
            python=python,
        )

    def request(self, **params: Any) -> Training:
        return Training(
            id=clock.new_id(), at=clock.now(), task=self.task, job_id=clock.new_id(), state="requested", params=params
        )

    def states(self) -> list[str]:
        return [event.state if isinstance(event, Training) else "adapter" for event in self.publisher.events]


def children() -> set[int]:
    """A process's own children that train or guard."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid() and (b"trainers.training.run" in command or b"guard.py" in command):
            found.add(int(entry.name))
    return found

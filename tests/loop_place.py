"""What the controller's tests run: a controller whose tables are stored and come back, as through Kafka."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.services.controller.controller import Controller
from ratchet.services.rules.placement import Placement
from ratchet.trainers.adapters.shelf import Shelf

POLICY = TaskPolicy.model_validate(
    {
        "completion": "ticket",
        "checks": [{"name": "ticket", "kind": "length", "min": 1}],
        "rollout": {
            "gates": [
                {"metric": "completion", "margin": 0.1, "max_n": 2_000},
                {"metric": "error_rate", "margin": 0.1, "max_n": 2_000},
                {"metric": "latency_p95", "margin": 0.5, "margin_kind": "rel"},
                {"metric": "satisfaction", "margin": 0.15, "max_n": 2_000},
            ],
            "stages": [
                {"name": "shadow", "mirror_bp": 10_000, "min_duration_s": 60, "max_wait_s": 600},
                {"name": "20%", "weight_bp": 2_000, "min_duration_s": 60, "max_wait_s": 600},
                {"name": "100%", "weight_bp": 10_000, "min_duration_s": 60, "max_wait_s": 600},
            ],
        },
    }
)
N = 600
EVERY = timedelta(seconds=100)


class Loop:
    """A controller whose tables are stored and come back, as through Kafka."""

    def __init__(
        self, traffic: Any, replicas: list[Any], store: Any = None, placement: Any = None, policy: TaskPolicy = POLICY
    ) -> None:
        self.traffic, self.replicas = traffic, replicas
        self.now: datetime = traffic.start
        self.publisher = MemoryPublisher(follow=lambda event: self.controller.receive(event))
        self.controller = Controller(
            store=store or traffic.store,
            publisher=self.publisher,
            replicas=VllmClient([replica.url for replica in replicas], timeout_s=5),
            placement=placement or Placement(tuple(replica.url for replica in replicas)),
            folder=Shelf(traffic.shelf).folder,
            tasks={traffic.task: policy},
            clock=lambda: self.now,
            new_id=lambda: traffic.new_id(self.now),
            interval_s=0.01,
        )

    async def tick(self, seconds: float = 0) -> list[Rollout]:
        """Let time pass and look once."""
        self.now += timedelta(seconds=seconds)
        tables = await self.controller.tick(self.now)
        self.traffic.write(*tables)
        return tables

    @property
    def state(self) -> Rollout:
        """The routing table in force."""
        return self.controller.states[self.traffic.task]

    async def begin(self, number: int = 1) -> Rollout:
        """Register an adapter and see its rollout start."""
        adapter = self.traffic.adapter(number, self.now)
        self.controller.receive(adapter)
        (table,) = await self.tick()
        assert (table.action, table.candidate) == ("start", adapter.name)
        return table

    def healthy(self, *arms: str) -> None:
        """Traffic of the present stage in which both arms do equally well."""
        for arm in arms:
            self.traffic.calls(self.state, arm, self.now, N, completed=570, thumbs_up=500)

    def asks(self, verb: str, **fields: Any) -> Operator:
        """A person's instruction arrives."""
        body = {
            "id": self.traffic.new_id(self.now),
            "at": self.now,
            "task": self.traffic.task,
            "verb": verb,
            "who": "ada",
        }
        asked = Operator.model_validate(body | fields)
        self.controller.receive(asked)
        return asked

"""`rollout status`: what the tables, the gates, the gateways and the queue say at this moment, out of ClickHouse alone.

The controller is not asked: it may be away, and what it would decide follows from the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from ratchet.consumers.calibration import Questions
from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rows import instant
from ratchet.services.controller.observe import observe
from ratchet.services.controller.seed import rollouts
from ratchet.services.rules.rollouts.acknowledging import HOLDS_UP
from ratchet.services.rules.rollouts.deciding import Decision, decide, gates_of, stage_of
from ratchet.services.rules.rollouts.evidence import StageEvidence
from ratchet.services.rules.rollouts.standing import (
    GateStanding,
    GatewayStanding,
    Step,
    Waiting,
    gate_standing,
    gateway_standings,
    track,
    waiting_list,
)
from ratchet.services.rules.rollouts.waiting import UNDER_WAY
from ratchet.trainers.registry import manifests


@dataclass(frozen=True)
class ArmCount:
    """What one arm got in the present stage; ``users`` are distinct sticky keys (None: only one arm has any)."""

    requests: int
    users: int | None


@dataclass(frozen=True)
class Switch:
    """The last table that sent users away from an adapter: seconds from the decision to its last request.

    ``followed`` of the ``gateways`` that spoke at that time have had the table in force since.
    """

    decided_at: datetime
    action: str
    adapter: str
    switch_seconds: float
    gateways: int
    followed: int


SWITCH = tuple(field.name for field in fields(Switch))


@dataclass(frozen=True)
class Standing:
    """Where one task's rollout stands.

    ``decision`` is what the controller would decide now, None where nothing is under way or the task is not declared.
    """

    table: Rollout
    at: datetime
    decision: Decision | None
    gates: list[GateStanding]
    track: list[Step]
    stable: ArmCount | None
    candidate: ArmCount | None
    gateways: list[GatewayStanding]
    queue: list[Waiting]
    switch: Switch | None

    @property
    def share(self) -> float | None:
        """The candidate's share of the users that were counted."""
        if self.stable is None or self.candidate is None or not self.candidate.users:
            return None
        return self.candidate.users / ((self.stable.users or 0) + self.candidate.users)

    def as_json(self) -> dict[str, Any]:
        """The table as its event has it, and beside it what is known at this moment."""
        now = None
        if self.decision is not None:
            gates = [
                one.result.model_dump(mode="json")
                | {name: value for name, value in asdict(one).items() if name != "result"}
                | {"cannot_decide": one.cannot_decide}
                for one in self.gates
            ]
            now = {"action": self.decision.action, "reason": self.decision.reason, "gates": gates}
        counted = {"stable": self.stable, "candidate": self.candidate, "share": self.share}
        return self.table.model_dump(mode="json") | {
            "now": now,
            "track": self.track,
            "counted": counted,
            "gateways": self.gateways,
            "queue": self.queue,
            "switch": self.switch,
        }


def standings(
    store: Questions, tasks: Mapping[str, TaskPolicy], now: datetime, copies_wait: bool = False, task: str | None = None
) -> list[Standing]:
    """Where each task that ever had a rollout stands, or one of them.

    Args:
        store: ClickHouse.
        tasks: the declared tasks.
        now: the present instant.
        copies_wait: the model servers put mirrored copies behind users' requests.
        task: one task; None: all.

    Raises:
        RolloutError: this one task has had no rollout.
        StoreError: ClickHouse refused or is away.
    """
    tables = [table for table in rollouts(store) if task in (None, table.task)]
    if task is not None and not tables:
        raise RolloutError(f"task {task!r} has had no rollout yet; its requests go to the base model")
    adapters = manifests(store) if tables else []
    return [_standing(store, table, tasks.get(table.task), adapters, now, copies_wait) for table in tables]


def _standing(
    store: Questions,
    table: Rollout,
    policy: TaskPolicy | None,
    adapters: Sequence[Adapter],
    now: datetime,
    copies_wait: bool,
) -> Standing:
    # what gateways said may be stored with an instant a little ahead of ours
    rows = store.query("rollout_gateways", task=table.task, until=instant(now + timedelta(seconds=5)))
    gateways = gateway_standings(rows, table.version, now)
    behind = [one.gateway for one in gateways if not one.acknowledged and now - one.seen_at <= HOLDS_UP]
    switches = store.query("rollout_switches", task=table.task, most=1)
    decision: Decision | None = None
    gates: list[GateStanding] = []
    stable, candidate = None, None
    if policy is not None and table.status in UNDER_WAY:
        evidence = observe(store, table, policy, now, copies_wait, behind)
        decision = decide(table, evidence, policy.rollout, now)
        gates = _gates(table, policy, evidence, decision, now)
        split = evidence.split
        stable = ArmCount(evidence.stable_requests, split.stable if split else None)
        candidate = ArmCount(evidence.requests, split.candidate if split else None)
    return Standing(
        table=table,
        at=now,
        decision=decision,
        gates=gates,
        track=track(table, policy.rollout, now) if policy else [],
        stable=stable,
        candidate=candidate,
        gateways=gateways,
        queue=waiting_list(table.task, adapters, table, policy.rollout.best_arm.candidates if policy else 1),
        switch=Switch(**{name: switches[0][name] for name in SWITCH}) if switches else None,
    )


def _gates(
    table: Rollout, policy: TaskPolicy, evidence: StageEvidence, decision: Decision, now: datetime
) -> list[GateStanding]:
    stage = stage_of(policy.rollout, table.stage)
    if stage is None:
        return []
    asked = {gate.metric: gate for gate in gates_of(policy.rollout, stage)}
    scale = policy.rollout.time_scale
    return [
        gate_standing(asked[result.gate], result, evidence.by_gate.get(result.gate), table, stage, scale, now)
        for result in decision.gates
    ]

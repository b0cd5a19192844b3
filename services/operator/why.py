"""`rollout why` and `rollout log`: the audit log's answer to why an adapter serves, at any instant in the past."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ratchet.consumers.calibration import Questions
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import BASE
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rows import instant
from ratchet.services.rules.rollouts.standing import GatewayStanding, gateway_standings
from ratchet.services.rules.rollouts.why import Why, explain
from ratchet.trainers.registry import manifests

KEPT = timedelta(days=30)
"""So long ClickHouse keeps what gateways said."""
LOG = 50


@dataclass(frozen=True)
class Account:
    """Why a task was served as it was at an instant.

    ``why`` is None where no table was in force yet. ``adapters`` has the manifests of those that served, by name;
    ``gateways`` what each had acknowledged by then, None where that is too long ago to be known.
    """

    task: str
    at: datetime
    why: Why | None
    adapters: dict[str, Adapter]
    gateways: list[GatewayStanding] | None

    def as_json(self) -> dict[str, Any]:
        """The account as JSON has it."""
        if self.why is None:
            return {"task": self.task, "at": self.at, "shares": {BASE: 1.0}, "table": None}
        why = self.why
        return {
            "task": self.task,
            "at": self.at,
            "shares": why.shares,
            "table": why.table.model_dump(mode="json"),
            "decided": _decision(why.decided),
            "rollout": [_decision(table) for table in why.rollout],
            "became_stable": [_decision(table) for table in why.became_stable],
            "adapters": {name: _made(one) for name, one in self.adapters.items()},
            "gateways": self.gateways,
        }


def account(store: Questions, task: str, at: datetime, now: datetime) -> Account:
    """Why a task was served as it was.

    Args:
        store: ClickHouse.
        task: the task's name.
        at: the instant that is asked about.
        now: the present instant.

    Raises:
        RolloutError: the instant is still to come.
        StoreError: ClickHouse refused or is away.
    """
    if at > now:
        raise RolloutError(f"{at:%Y-%m-%dT%H:%M:%SZ} is still to come; allowed: an instant that is over")
    why = explain(tables(store, task, at))
    if why is None:
        return Account(task, at, None, {}, None)
    known = {one.name: one for one in manifests(store)}
    served = [name for name in (*why.shares, why.table.stable, why.table.candidate) if name in known]
    gateways = None
    if now - at < KEPT:
        rows = store.query("rollout_gateways", task=task, until=instant(at))
        gateways = gateway_standings(rows, why.table.version, at)
    return Account(task, at, why, {name: known[name] for name in served if name}, gateways)


def tables(store: Questions, task: str, until: datetime) -> list[Rollout]:
    """Every routing table of a task up to an instant, oldest first.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    rows = store.query("rollout_tables", task=task, until=instant(until))
    return [parse(Rollout, row["state"].encode()) for row in rows]


def transitions(store: Questions, task: str, now: datetime, most: int = LOG) -> list[dict[str, Any]]:
    """A task's decisions as JSON has them, the latest first.

    Raises:
        RolloutError: there is none.
        StoreError: ClickHouse refused or is away.
    """
    found = tables(store, task, now + timedelta(seconds=5))
    if not found:
        raise RolloutError(f"task {task!r} has had no rollout yet; its requests go to the base model")
    return [_decision(table) for table in found[-most:][::-1]]


def _decision(table: Rollout) -> dict[str, Any]:
    names = (
        "at", "version", "rollout_id", "action", "actor", "reason", "status", "stage", "stable", "candidate",
        "previous", "weight_bp", "mirror_bp", "arms", "gates",
    )  # fmt: skip
    return table.model_dump(mode="json", include=set(names))


def _made(adapter: Adapter) -> dict[str, Any]:
    names = {"at", "dataset", "dataset_sha256", "method", "base_model", "job_id", "parents", "label"}
    return adapter.model_dump(mode="json", include=names)

"""The retraining trigger: reads pairs, alerts and the clock, asks for training once, says why not when that changes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from ratchet.consumers.rules.trigger import Asking, Spent, TriggerDecision, TriggerState, asking, decide
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.events import Training
from ratchet.schemas.ids import derived_id
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

UNFINISHED = frozenset({"requested", "started", "progress"})
FAILED = frozenset({"failed", "cancelled"})
BUDGET_DAYS = 30
LATEST_RUNS = 3
"""Trainings whose mean says what the next one may take."""
SILENT_S = 24 * 3600.0
"""A job without a word for so long counts as dead; without this a lost worker would end all retraining."""


class Trigger:
    """Considers tasks; call `consider` after pairs were written and every now and then.

    A job's id is derived from what the store knew at the decision (the task, how many
    trainings there were and when the last one was asked for), so a restart between the
    request and its arrival in the store asks for the same job, not for a second one.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        tasks: Mapping[str, TaskPolicy],
        clock: Callable[[], datetime],
    ) -> None:
        """Take the parts; nothing is asked yet."""
        self._store = store
        self._publisher = publisher
        self._tasks = tasks
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pending: dict[str, str] = {}
        self._said: dict[str, tuple[str, str | None, str]] = {}

    async def consider(self, task: str) -> TriggerDecision | None:
        """Decide for one task and publish a request, or a refusal of a new kind, alert or scheduled time.

        Returns:
            The decision; None for a task without a policy.

        Raises:
            StoreError: ClickHouse is away; nothing was decided.
            BrokerError: the publisher's queue is full; the next call decides again.
        """
        policy = self._tasks.get(task)
        if policy is None:
            return None
        async with self._locks[task]:
            now = self._clock()
            runs = await asyncio.to_thread(self._store.query, "trigger_runs", task=task)
            # a refusal is no training: it starts no cooldown and learns from no pairs
            asked = [run for run in runs if run["state"] != "declined"]
            state = await asyncio.to_thread(self._state, task, policy, asked, now)
            decision = decide(state, policy.retraining, now)
            if decision.train:
                self._request(task, policy, decision, state, len(asked), now)
            else:
                self._decline(task, policy, decision, state.alert, runs, now)
            return decision

    def _state(self, task: str, policy: TaskPolicy, jobs: list[dict[str, Any]], now: datetime) -> TriggerState:
        known = {str(job["job_id"]) for job in jobs}
        alive = now - timedelta(seconds=SILENT_S)
        running = next(
            (str(job["job_id"]) for job in jobs if job["state"] in UNFINISHED and job["updated_at"] > alive), None
        )
        if self._pending.get(task) in known:
            del self._pending[task]  # it arrived; from here on the store tells
        last = max((job["requested_at"] for job in jobs), default=None)
        day = now - timedelta(days=1)
        return TriggerState(
            train_pairs=self._train_pairs(task, datetime(2299, 1, 1, tzinfo=UTC)),
            trained_pairs=self._trained(task, jobs),
            running=self._pending.get(task) or running,
            last_request_at=last,
            requests_24h=sum(1 for job in jobs if job["trigger"] != "manual" and job["requested_at"] > day),
            alert=self._alert(task, policy, jobs),
            spent=_spent(policy, jobs, now),
        )

    def _alert(self, task: str, policy: TaskPolicy, jobs: list[dict[str, Any]]) -> Asking | None:
        if not policy.retraining.on_alerts:
            return None
        rows = self._store.query("trigger_alerts", task=task, kinds=list(policy.retraining.on_alerts))
        answered = (str(job["alert_id"]) for job in jobs if job["alert_id"] and job["state"] not in FAILED)
        return asking((Asking(**row) for row in rows), answered)

    def _trained(self, task: str, jobs: list[dict[str, Any]]) -> int:
        learned = [job for job in jobs if job["state"] not in FAILED]
        if not learned:
            return 0
        job = max(learned, key=lambda job: job["requested_at"])
        if job["train_pairs"] >= 0:
            return int(job["train_pairs"])
        # asked for by hand, without the count: what there was by then
        return self._train_pairs(task, job["requested_at"])

    def _train_pairs(self, task: str, until: datetime) -> int:
        return int(self._store.query("train_pairs", task=task, until=instant(until))[0]["n"])

    def _request(
        self, task: str, policy: TaskPolicy, decision: TriggerDecision, state: TriggerState, runs: int, now: datetime
    ) -> None:
        since = state.last_request_at
        job_id = derived_id(_unix_ms(since) if since else 0, "training", task, str(runs))
        self._publisher.publish(
            Training(
                id=derived_id(_unix_ms(now), job_id, "requested"),
                at=now,
                task=task,
                job_id=job_id,
                state="requested",
                method=policy.training.method,
                trigger=decision.cause,
                alert_id=state.alert.id if state.alert else None,
                reason=decision.reason,
                metrics={"train_pairs": float(state.train_pairs), "new_pairs": float(decision.new_pairs)},
                params=policy.training.model_dump(mode="json"),
            )
        )
        self._pending[task] = job_id
        self._said.pop(task, None)

    def _decline(
        self,
        task: str,
        policy: TaskPolicy,
        decision: TriggerDecision,
        alert: Asking | None,
        runs: list[dict[str, Any]],
        now: datetime,
    ) -> None:
        alert_id = alert.id if alert else None
        scheduled_at = decision.scheduled_at.isoformat() if decision.scheduled_at else ""
        if task not in self._said and runs:
            # after a restart, what was said last is in the store
            last = max(runs, key=lambda run: (run["requested_at"], UUID(str(run["job_id"])).int))
            if last["state"] == "declined":
                self._said[task] = (str(last["code"]), last["alert_id"], str(last["scheduled_at"]))
        if self._said.get(task) == (decision.code, alert_id, scheduled_at):
            return
        job_id = derived_id(_unix_ms(now), "training-declined", task, decision.code)
        self._publisher.publish(
            Training(
                id=derived_id(_unix_ms(now), job_id, "declined"),
                at=now,
                task=task,
                job_id=job_id,
                state="declined",
                method=policy.training.method,
                trigger=decision.cause,
                alert_id=alert_id,
                reason=decision.reason,
                params={"code": decision.code} | ({"scheduled_at": scheduled_at} if scheduled_at else {}),
            )
        )
        self._said[task] = (decision.code, alert_id, scheduled_at)


def _spent(policy: TaskPolicy, jobs: list[dict[str, Any]], now: datetime) -> Spent:
    """What the jobs of the last 30 days took, by hand or not, and what the last ones took on average."""
    budget = policy.retraining.budget
    if budget is None:
        return Spent()
    price = budget.usd_per_hour or 0.0
    since = now - timedelta(days=BUDGET_DAYS)
    took = [
        (hours, float(job["cost_usd"]) if job["cost_usd"] >= 0 else hours * price, job["updated_at"])
        for job in jobs
        if (hours := job["seconds"] / 3600) > 0 or job["cost_usd"] >= 0
    ]
    latest = sorted(took, key=lambda one: one[2])[-LATEST_RUNS:]
    recent = [one for one in took if one[2] > since]
    return Spent(
        hours=sum(one[0] for one in recent),
        usd=sum(one[1] for one in recent),
        next_hours=sum(one[0] for one in latest) / max(1, len(latest)),
        next_usd=sum(one[1] for one in latest) / max(1, len(latest)),
    )


def _unix_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)

"""What a task's rollouts will be like: its traffic as recorded, and what is wrong with its policy."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ratchet.consumers.calibration import Questions, comparing, in_force
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_policy import Stage
from ratchet.schemas.rows import instant
from ratchet.services.controller.observe import unobservable
from ratchet.services.rules.rollouts.lint_traffic import lint_traffic
from ratchet.services.rules.rollouts.linting import Finding, Trusted, lint
from ratchet.services.rules.rollouts.task_traffic import Measured, traffic_of
from ratchet.services.rules.rollouts.traffic import Traffic

ENOUGH = 100
"""Requests or verdicts below which a figure is not taken from what was recorded."""
_SHADOW = Stage(name="shadow", mirror_bp=1)


def measured(store: Questions, task: str, policy: TaskPolicy, since: datetime, until: datetime) -> Measured | None:
    """A task's traffic as recorded, with the usual figures where too little was; None of next to no traffic.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    check = "" if policy.completion == "outcome" else policy.completion
    row = store.query("rollout_traffic", task=task, check=check, since=instant(since), until=instant(until))[0]
    return figures(row, bool(check), since, until)


def figures(row: dict[str, Any], by_check: bool, since: datetime, until: datetime) -> Measured | None:
    """What one row of ``rollout_traffic`` says."""
    requests = row["requests"]
    if requests < ENOUGH:
        return None
    began = row["first_at"] if row["first_at"].tzinfo else row["first_at"].replace(tzinfo=UTC)
    hours = max((until - max(since, began)).total_seconds() / 3600, 1 / 60)
    found = Measured(requests_per_hour=requests / hours, error_rate=row["errors"] / requests)
    if row["users"] < 0.95 * requests:
        # a user's count varies by chance (Poisson) and by how active the user is (lognormal)
        mean = requests / row["users"]
        extra = max(row["squares"] / row["users"] - mean**2 - mean, 0.0) / mean**2
        found = replace(found, users=row["users"], activity_sd=math.sqrt(math.log1p(extra)))
    if row["timed"] >= ENOUGH and row["p95_ms"] > row["p50_ms"]:
        found = replace(found, latency_sd=math.log(row["p95_ms"] / row["p50_ms"]) / 1.645)
    if row["thumbs"] >= ENOUGH:
        found = replace(
            found, feedback_share=min(row["thumbs"] / requests, 1.0), satisfaction=row["thumbs_up"] / row["thumbs"]
        )
    told, done = (row["checked"], row["passed"]) if by_check else (row["outcomes"], row["completed"])
    if told >= ENOUGH:
        found = replace(found, outcome_share=min(told / requests, 1.0), completion=done / told)
    late = row["delay_h"]
    return replace(found, delay_h=late) if late is not None and math.isfinite(late) and late > 0 else found


def trusted(store: Questions, task: str, policy: TaskPolicy, now: datetime) -> dict[str, bool]:
    """By metric that a judge answers, of those that the gates ask, whether its word decides now.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    judges = {"judge_score": in_force, "win_rate": comparing}
    gates = [gate.metric for stage in policy.rollout.stages for gate in stage.gates or policy.rollout.gates]
    return {name: judge(store, task, policy, now).standing.trusted for name, judge in judges.items() if name in gates}


def traffic(policy: TaskPolicy, seen: Measured, copies_wait: bool) -> Traffic:
    """What the task's gates would see of this traffic."""
    return traffic_of(policy, seen, unobservable(_SHADOW, policy, copies_wait))


def findings(
    policy: TaskPolicy, seen: Measured | None, copies_wait: bool = False, judge_trusted: Trusted | None = None
) -> list[Finding]:
    """What is wrong with a task's rollout policy, the errors first; without traffic only what does not hang on it."""

    def hidden(stage: Stage) -> frozenset[str]:
        return frozenset(unobservable(stage, policy, copies_wait))

    found = lint(policy, hidden, judge_trusted)
    if seen is not None:
        found += lint_traffic(policy, hidden, traffic(policy, seen, copies_wait))
    return sorted(found, key=lambda one: one.severity)

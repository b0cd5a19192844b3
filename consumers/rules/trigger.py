"""When training starts by itself: enough new pairs, nothing running, not too soon, too often or too dear, not in quiet.

An open alert or a scheduled time makes fewer pairs enough; they lift nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ratchet.schemas.retraining_policy import Budget, RetrainingPolicy

Code = Literal["train", "disabled", "running", "too_few_pairs", "cooldown", "daily_cap", "quiet_hours", "budget"]
Cause = Literal["pairs", "schedule", "drift"]
"""What asks for training, as ``training.v1`` names it: new pairs alone, a scheduled time, an alert."""
NOT_LEARNED = frozenset({"latency", "cost", "errors"})
"""Metrics that no training mends: their alerts ask for none."""


@dataclass(frozen=True, slots=True)
class Asking:
    """An open alert that may ask for training: its id, its title and the metric that moved (``""``: not said)."""

    id: str
    title: str
    metric: str = ""


def asking(alerts: Iterable[Asking], answered: Iterable[str]) -> Asking | None:
    """Give the first alert that training can mend and that none was asked for.

    Args:
        alerts: those that are open, the gravest first.
        answered: ids of alerts for which a training was requested that did not fail.
    """
    done = frozenset(answered)
    return next((one for one in alerts if one.id not in done and one.metric not in NOT_LEARNED), None)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a task's trainings took in the last 30 days, and what the next one may take (the mean of the last ones)."""

    hours: float = 0.0
    usd: float = 0.0
    next_hours: float = 0.0
    next_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class TriggerState:
    """What the decision sees of one task.

    ``train_pairs`` counts built pairs of the train split now, ``trained_pairs`` how many there were
    when the last training that did not fail was requested. ``running`` is a job that has not ended.
    ``last_request_at`` is the last request of any kind; ``requests_24h`` counts automatic ones in the last day.
    ``alert`` is the open alert that asks, see `asking`; ``spent`` is what the budget is held against.
    """

    train_pairs: int
    trained_pairs: int = 0
    running: str | None = None
    last_request_at: datetime | None = None
    requests_24h: int = 0
    alert: Asking | None = None
    spent: Spent = Spent()


@dataclass(frozen=True, slots=True)
class TriggerDecision:
    """Train or not; ``code`` is the kind of reason (stable while counts change), ``reason`` one sentence.

    ``scheduled_at`` is the scheduled time that the decision is about, where one is due.
    """

    train: bool
    code: Code
    reason: str
    new_pairs: int
    cause: Cause = "pairs"
    scheduled_at: datetime | None = None


def decide(state: TriggerState, policy: RetrainingPolicy, now: datetime) -> TriggerDecision:
    """Decide whether a task's pairs, an alert or a scheduled time call for training now.

    Args:
        state: what is known of the task.
        policy: the task's thresholds.
        now: the present instant, with zone.

    Returns:
        The decision; the first condition that stands against training gives the reason.
    """
    new = max(0, state.train_pairs - state.trained_pairs)
    scheduled = policy.due(now)
    if scheduled is not None and state.last_request_at is not None and state.last_request_at >= scheduled:
        scheduled = None  # something came of it
    cause, needed, asks = _wanted(state, policy, scheduled)

    def no(code: Code, reason: str) -> TriggerDecision:
        return TriggerDecision(False, code, reason + asks, new, cause, scheduled)

    if not policy.enabled:
        return no("disabled", "retraining is switched off for this task")
    if state.running is not None:
        return no("running", f"job {state.running} has not ended; one training of a task at a time")
    if new < needed:
        return no("too_few_pairs", f"{new} new train pairs; {needed} are needed")
    if state.last_request_at is not None:
        until = state.last_request_at + timedelta(seconds=policy.cooldown_s)
        if now < until:
            return no("cooldown", f"{new} new train pairs wait for the cooldown to end at {until.isoformat()}")
    if state.requests_24h >= policy.daily_cap:
        return no("daily_cap", f"{state.requests_24h} trainings in 24 hours; at most {policy.daily_cap} are allowed")
    if (quiet := policy.quiet_until(now)) is not None:
        return no("quiet_hours", f"{new} new train pairs wait for the quiet hours to end at {quiet.isoformat()}")
    if policy.budget is not None and (over := _over(state.spent, policy.budget)) is not None:
        return no("budget", over)
    return TriggerDecision(True, "train", f"{new} new train pairs (at least {needed}){asks}", new, cause, scheduled)


def _wanted(state: TriggerState, policy: RetrainingPolicy, scheduled: datetime | None) -> tuple[Cause, int, str]:
    """Who asks for training, how many new pairs are enough then, and the clause that says so."""
    cause: Cause = "pairs"
    needed, asks = policy.min_new_pairs, ""
    if scheduled is not None:
        cause, needed = "schedule", min(needed, policy.schedule_min_pairs)
        asks = f"; scheduled for {scheduled.isoformat()}"
    if state.alert is not None:
        cause, needed = "drift", min(needed, policy.alert_min_pairs)
        asks += f"; alert {state.alert.id} asks: {state.alert.title}"
    return cause, needed, asks


def _over(spent: Spent, budget: Budget) -> str | None:
    """Say which limit the next training would pass, or None."""
    found = (
        ("hours", spent.hours, spent.next_hours, budget.hours),
        ("dollars", spent.usd, spent.next_usd, budget.usd),
    )
    for unit, used, coming, limit in found:
        if limit is not None and (used >= limit or used + coming > limit):
            next_one = f" and the next may take {coming:.4g}" if coming else ""
            return f"trainings took {used:.4g} of the budget's {limit:.4g} {unit} in 30 days{next_one}"
    return None

"""When training starts by itself: enough new pairs, nothing running, not too soon, not too often.

An open alert makes fewer pairs enough; it lifts nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ratchet.schemas.policies import RetrainingPolicy

Code = Literal["train", "disabled", "running", "too_few_pairs", "cooldown", "daily_cap"]
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
class TriggerState:
    """What the decision sees of one task.

    ``train_pairs`` counts built pairs of the train split now, ``trained_pairs`` how many there were
    when the last training that did not fail was requested. ``running`` is a job that has not ended.
    ``last_request_at`` is the last request of any kind; ``requests_24h`` counts automatic ones in the last day.
    ``alert`` is the open alert that asks, see `asking`.
    """

    train_pairs: int
    trained_pairs: int = 0
    running: str | None = None
    last_request_at: datetime | None = None
    requests_24h: int = 0
    alert: Asking | None = None


@dataclass(frozen=True, slots=True)
class TriggerDecision:
    """Train or not; ``code`` is the kind of reason (stable while counts change), ``reason`` one sentence."""

    train: bool
    code: Code
    reason: str
    new_pairs: int


def decide(state: TriggerState, policy: RetrainingPolicy, now: datetime) -> TriggerDecision:
    """Decide whether a task's pairs, or an alert and its pairs, call for training now.

    Args:
        state: what is known of the task.
        policy: the task's thresholds.
        now: the present instant, with zone.

    Returns:
        The decision; the first condition that stands against training gives the reason.
    """
    new = max(0, state.train_pairs - state.trained_pairs)
    needed, asks = policy.min_new_pairs, ""
    if state.alert is not None:
        needed = min(needed, policy.alert_min_pairs)
        asks = f"; alert {state.alert.id} asks: {state.alert.title}"

    def no(code: Code, reason: str) -> TriggerDecision:
        return TriggerDecision(False, code, reason + asks, new)

    if not policy.enabled:
        return no("disabled", "retraining is switched off for this task")
    if state.running is not None:
        return no("running", f"job {state.running} has not ended; one training of a task at a time")
    if new < needed:
        return no("too_few_pairs", f"{new} new train pairs; {needed} are needed")
    if state.last_request_at is not None:
        due = state.last_request_at + timedelta(seconds=policy.cooldown_s)
        if now < due:
            return no("cooldown", f"{new} new train pairs wait for the cooldown to end at {due.isoformat()}")
    if state.requests_24h >= policy.daily_cap:
        return no("daily_cap", f"{state.requests_24h} trainings in 24 hours; at most {policy.daily_cap} are allowed")
    return TriggerDecision(True, "train", f"{new} new train pairs (at least {needed}){asks}", new)

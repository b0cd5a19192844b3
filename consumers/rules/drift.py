"""Which moves are worth telling of: effect AND significance AND persistence, over all metrics of an hour at once.

With enough traffic every difference is significant (a shift of 0.02 standard deviations is found 98% of the time at
100,000 answers), and with little of it every large effect is chance; and an hour may be odd once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite

from ratchet.consumers.rules.measurement import Measurement, Window
from ratchet.schemas.drift_policy import DriftPolicy
from ratchet.schemas.monitoring_events import DriftVerdict

WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Run:
    """What a rule said of a metric up to an hour: hours in a row beyond the threshold, and within it."""

    streak: int = 0
    calm: int = 0


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is said of one measurement; ``run`` has this hour in it."""

    measurement: Measurement
    verdict: DriftVerdict
    threshold: float
    q_value: float | None
    run: Run
    reason: str


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that cutting them at α bounds the share of false discoveries by α.

    q₍ᵢ₎ = min over j ≥ i of p₍ⱼ₎·m/j (Benjamini and Hochberg, 1995), for independent or positively dependent tests.

    Args:
        p_values: each 0–1, in any order.

    Returns:
        The adjusted values, in the same order.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [1.0] * len(p_values)
    least = 1.0
    for rank in range(len(order), 0, -1):
        index = order[rank - 1]
        least = min(least, p_values[index] * len(order) / rank)
        adjusted[index] = least
    return adjusted


def threshold(found: Measurement, policy: DriftPolicy) -> float:
    """How large a metric's effect must be: the metric's own threshold, else that of its kind of effect."""
    metric = found.metric.partition(":")[0]  # judge_score:<version> is a judge_score
    own = policy.thresholds.get(metric)
    if own is not None:
        return own
    by_kind = {"psi": policy.psi, "js": policy.js, "relative": policy.relative, "difference": policy.difference}
    return by_kind[found.effect_name]


def step(run: Run, verdict: DriftVerdict) -> Run:
    """Count one more hour: an abstention neither goes on with a run nor ends it."""
    if verdict == "abstain":
        return run
    return Run(0, run.calm + 1) if verdict == "ok" else Run(run.streak + 1, 0)


def rule_on(measurements: Sequence[Measurement], before: dict[str, Run], policy: DriftPolicy) -> list[Ruling]:
    """Say of every metric of one hour whether it moved.

    Args:
        measurements: of one task and adapter, all of the hour.
        before: each metric's run up to the hour before.
        policy: the task's.

    Returns:
        One ruling a measurement, in the same order: ``drift`` once the move has lasted, ``suspect`` before.
    """
    tested = [index for index, one in enumerate(measurements) if _abstains(one) is None]
    q_values = dict(zip(tested, benjamini_hochberg([_p(measurements[index]) for index in tested]), strict=True))
    return [
        _one(found, q_values.get(index), before.get(found.metric, Run()), policy)
        for index, found in enumerate(measurements)
    ]


def _one(found: Measurement, q_value: float | None, before: Run, policy: DriftPolicy) -> Ruling:
    limit = threshold(found, policy)
    why = _abstains(found)
    if why is not None or found.effect is None or q_value is None:
        return Ruling(found, "abstain", limit, None, before, why or "nothing was measured")
    figures = f"{found.effect_name} {found.effect:.3g} (threshold {limit:g}), q {q_value:.2g} (α {policy.alpha:g})"
    if abs(found.effect) < limit or q_value >= policy.alpha:
        lacks = "effect" if abs(found.effect) < limit else "significance"
        return Ruling(found, "ok", limit, q_value, step(before, "ok"), f"{figures}: no {lacks}")
    run = step(before, "suspect")
    lasted = run.streak >= policy.persistence
    reason = f"{figures}, for {run.streak} of {policy.persistence} hours in a row"
    return Ruling(found, "drift" if lasted else "suspect", limit, q_value, run, reason)


def _p(found: Measurement) -> float:
    assert found.p_value is not None
    return found.p_value


def _abstains(found: Measurement) -> str | None:
    """Why a measurement cannot be ruled on; a figure that is no number is no evidence either way."""
    if found.abstains is not None:
        return found.abstains
    for name, value in (("effect", found.effect), ("p-value", found.p_value)):
        if value is None or not isfinite(value):
            return f"no {name}"
    return None


def calmer(one: Measurement, other: Measurement) -> Measurement:
    """Of one metric beside two baselines the measurement that moved less; one that says nothing does not count."""
    if _abstains(other) is not None or one.effect is None or other.effect is None:
        return one
    if _abstains(one) is not None:
        return other
    return other if abs(other.effect) < abs(one.effect) else one


def same_hours(baseline: Window, window: Window) -> Window | None:
    """The window's hours of the week within the baseline, where there are two weeks since the baseline began.

    Traffic has its hours: what is normal on a Monday morning is compared with a Monday morning. Before two weeks
    have passed, or where the baseline is shorter than a week and lacks these hours, there is None.
    """
    if window.until - baseline.since < 2 * WEEK:
        return None
    weeks = (window.since - baseline.since) // WEEK
    moved = Window(window.since - weeks * WEEK, window.until - weeks * WEEK)
    if moved.until > baseline.until and moved.since - WEEK >= baseline.since:
        moved = Window(moved.since - WEEK, moved.until - WEEK)
    return moved if baseline.since <= moved.since and moved.until <= baseline.until else None

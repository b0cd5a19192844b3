"""When refusals or uncertain answers have become more: the Bernoulli CUSUM, an hour at a time.

S = max(0, S + m·[p̂·ln(p1/p0) + (1 − p̂)·ln((1 − p1)/(1 − p0))]), alarm at S ≥ ln(mean_hours), for an hour with rate
p̂ and m independent answers' worth of evidence (M. R. Reynolds and Z. G. Stoumbos 1999, here at hours' ends). exp of
one hour's term has mean ≤ 1 while the rate is ≤ p0, so the mean time to a false alarm is ≥ ``mean_hours``
(Shin, Ramdas and Rinaldo 2022).

Rates vary between hours by more than chance, and neighbouring hours alike: m = v / (v/n + τ²·(1 + φ)/(1 − φ)) with
v = p0·(1 − p0), the number of independent answers whose mean varies as much as the hour's does in the long run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite, log

from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality import Outcome, Verdict, arrival, ignored
from ratchet.consumers.rules.quality_baseline import Baseline


@dataclass(frozen=True, slots=True)
class RateThresholds:
    """``rise`` (absolute) that is to be found, ``mean_hours`` between false alarms, ``min_n`` answers an hour."""

    rise: float = 0.05
    mean_hours: float = 8760.0
    min_n: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.rise < 1:
            raise ValueError(f"rise={self.rise!r}; allowed: between 0 and 1")
        if not (isfinite(self.mean_hours) and self.mean_hours >= 24):
            raise ValueError(f"mean_hours={self.mean_hours!r}; allowed: >= 24")
        if not (isfinite(self.min_n) and self.min_n >= 1):
            raise ValueError(f"min_n={self.min_n!r}; allowed: >= 1")


@dataclass(frozen=True, slots=True)
class Rate:
    """The Bernoulli CUSUM's state: ``total`` is S; the baseline's mean is p0."""

    baseline: Baseline
    total: float = 0.0
    since: datetime | None = None
    last: datetime | None = None


def bernoulli(state: Rate, hour: HourValue, thresholds: RateThresholds) -> tuple[Rate, Verdict]:
    """Judge one more hour's rate; it begins again at 0 after an alarm. An hour without data leaves S as it is.

    A baseline in which it never happened is no certainty that it cannot: p0 is at least 1/(n·hours + 2).
    """
    limit = log(thresholds.mean_hours)
    wrong, steps = arrival(state.baseline, state.last, hour, thresholds.min_n)
    if steps <= 0:
        return state, ignored(hour, state.last, state.total, limit)
    if not wrong and not 0 <= hour.mean <= 1:
        wrong = f"rate={hour.mean:g} is not within 0 and 1"
    if wrong:
        return replace(state, last=hour.hour), Verdict(hour.hour, "abstain", state.total, limit, state.since, wrong)
    base = state.baseline
    p0, p1 = compared(base, hour.hour, thresholds.rise)
    weight = evidence(base, p0, hour.n)
    term = hour.mean * log(p1 / p0) + (1 - hour.mean) * log((1 - p1) / (1 - p0))
    total = max(0.0, state.total + weight * term)
    since = (state.since or hour.hour) if total > 0 else None
    if total >= limit:
        reason = f"evidence {total:.3g} for {p1:.2%} against {p0:.2%} reached {limit:.3g}"
        return Rate(base, last=hour.hour), Verdict(hour.hour, "alarm", total, limit, since, reason)
    outcome: Outcome = "suspect" if total > limit / 2 else "quiet"
    return Rate(base, total, since, hour.hour), Verdict(hour.hour, outcome, total, limit, since)


def compared(baseline: Baseline, hour: datetime, rise: float) -> tuple[float, float]:
    """p0, the baseline's rate in this hour kept off 0 and 1, and p1, the rate to be found."""
    least = 1 / (baseline.n * baseline.hours + 2)
    p0 = min(max(baseline.expected(hour), least), 1 - 2 * least)
    return p0, min(p0 + rise, 1 - least)


def evidence(baseline: Baseline, p0: float, n: float) -> float:
    """m, the independent answers' worth of an hour of ``n``."""
    spread = p0 * (1 - p0)
    lasting = baseline.between * (1 + baseline.phi) / (1 - baseline.phi)
    return spread / (spread / n + lasting)

"""When refusals or uncertain answers have become more: the Bernoulli CUSUM, an hour at a time.

S = max(0, S + m·[p̂·ln(p1/p0) + (1 − p̂)·ln((1 − p1)/(1 − p0))]), alarm at S ≥ ln(mean_hours), for an hour with rate
p̂ and m effective answers (M. R. Reynolds and Z. G. Stoumbos 1999, here at hours' ends). exp of one hour's term has
mean ≤ 1 while the rate is ≤ p0, so the mean time to a false alarm is ≥ ``mean_hours`` (Shin et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality import Verdict
from ratchet.consumers.rules.quality_baseline import Baseline


@dataclass(frozen=True, slots=True)
class RateThresholds:
    """``rise`` (absolute) that is to be found, ``mean_hours`` between false alarms, ``min_n`` answers an hour."""

    rise: float = 0.05
    mean_hours: float = 8760.0
    min_n: float = 20.0


@dataclass(frozen=True, slots=True)
class Rate:
    """The Bernoulli CUSUM's state: ``total`` is S; the baseline's mean is p0."""

    baseline: Baseline
    total: float = 0.0
    since: datetime | None = None
    last: datetime | None = None


def bernoulli(state: Rate, hour: HourValue, thresholds: RateThresholds) -> tuple[Rate, Verdict]:
    """Judge one more hour's rate."""
    raise NotImplementedError

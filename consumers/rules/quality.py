"""When judged quality has fallen: the required page, and two earlier warnings that come with a promise.

Each rule is a frozen state and ``update(state, hour, thresholds) -> (state, verdict)``; ``fold`` runs one over hours.
``quality_arrays`` holds the same decisions for thousands of series at once, ``quality_baseline`` what they compare with.

All three read one hour's mean x of n judged answers beside a baseline of mean b, variance σ² of one answer, variance
τ² between hours and correlation φ of neighbouring hours:

- **page** (the required rule): x < b·(1 − drop) AND x < b − z·√(σ²/n + τ²), ``hours`` times in a row.
- **cusum** (earlier, tuned to one size): S = max(0, S − r − k), alarm at S > h, where r is the hour's standardised
  residual, k half the drop to be found in the residual's units, and h follows from the wanted mean time between false
  alarms by Siegmund's approximation (E. S. Page 1954; D. Siegmund, Sequential Analysis, 1985, §II.6).
- **detector** (earlier, any size, with a bound): M = e·max(M, 1) for each of several drops, alarm when their mean is
  ≥ 1/α; the mean time to a false alarm is ≥ 1/α hours (J. Shin, A. Ramdas, A. Rinaldo, E-detectors, 2022).

The residual r is what is left of x after what the hours before predict: hours that move together (φ) would otherwise
count as news several times. Under b + AR(1) hour effects + sampling noise, r is standard normal and independent over
hours (a Kalman filter's innovation; L. C. Alwan and H. V. Roberts 1988 on charts of residuals). An hour without data
only lets the prediction fade by φ.

What happens to bad hours is in ``Verdict.outcome``: an hour below ``min_n``, a NaN and an hour that did not come
``abstain``: they neither alarm nor calm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import exp, isfinite, log, sqrt
from typing import Literal, TypeVar

from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality_baseline import Baseline

Outcome = Literal["quiet", "suspect", "alarm", "abstain", "ignored"]
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the three rules may be set to; the defaults are those that the table of error rates was made with.

    Attributes:
        drop: the relative fall that pages, between 0 and 1.
        hours: judged hours in a row below it.
        z: how many standard errors an hour must be below the baseline as well; 0 leaves the drop alone.
        min_n: below so many (effective) observations an hour abstains.
        max_gap: hours without a judgement over which a run of bad hours is kept; after more, it lapses.
        mean_hours: hours between two false alarms that cusum aims at and that the detector bounds (1/α).
        bets: the relative falls that the detector bets on, each with the same weight.
    """

    drop: float = 0.05
    hours: int = 3
    z: float = 2.326
    min_n: float = 20.0
    max_gap: int = 3
    mean_hours: float = 8760.0
    bets: tuple[float, ...] = (0.05, 0.1, 0.2)

    def __post_init__(self) -> None:
        allowed = (
            ("drop", 0 < self.drop < 1, "between 0 and 1"),
            ("hours", self.hours >= 1, ">= 1"),
            ("z", isfinite(self.z) and self.z >= 0, ">= 0"),
            ("min_n", isfinite(self.min_n) and self.min_n >= 1, ">= 1"),
            ("max_gap", self.max_gap >= 0, ">= 0"),
            ("mean_hours", isfinite(self.mean_hours) and self.mean_hours >= 24, ">= 24"),
            ("bets", bool(self.bets) and all(0 < bet < 1 for bet in self.bets), "one or more, each between 0 and 1"),
        )
        for name, right, what in allowed:
            if not right:
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: {what}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of one hour.

    ``outcome`` is ``alarm`` in every hour in which the page's condition holds, and in the hour in which cusum or the
    detector cross (they then begin again at nothing); ``suspect`` on the way there; ``abstain`` where the hour says
    nothing (never a reason to resolve an alert); ``ignored`` where the hour is not after the last one.
    ``statistic`` is compared with ``limit``: the page's hours in a row, cusum's S and h, the detector's M and 1/α.
    ``since`` is the first hour of the run that led here.
    """

    hour: datetime
    outcome: Outcome
    statistic: float
    limit: float
    since: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The required page: ``streak`` bad hours in a row, ``gap`` hours without a judgement since the last one."""

    baseline: Baseline
    streak: int = 0
    gap: int = 0
    since: datetime | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """What the past predicts of the next hour's effect: its mean and variance (of the effect, not of the hour)."""

    effect: float
    spread: float


@dataclass(frozen=True, slots=True)
class Cusum:
    """The one-sided standardised CUSUM over residuals: ``total`` is S."""

    baseline: Baseline
    total: float = 0.0
    filter: Filter | None = None
    since: datetime | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Detector:
    """The e-detector over residuals: ``logs`` is ln M for each bet, empty before the first hour."""

    baseline: Baseline
    logs: tuple[float, ...] = ()
    filter: Filter | None = None
    since: datetime | None = None
    last: datetime | None = None


def page(state: Page, hour: HourValue, thresholds: Thresholds) -> tuple[Page, Verdict]:
    """Judge one more hour by the required page."""
    raise NotImplementedError


def cusum(state: Cusum, hour: HourValue, thresholds: Thresholds) -> tuple[Cusum, Verdict]:
    """Judge one more hour by the CUSUM."""
    raise NotImplementedError


def detector(state: Detector, hour: HourValue, thresholds: Thresholds) -> tuple[Detector, Verdict]:
    """Judge one more hour by the e-detector."""
    raise NotImplementedError


State = TypeVar("State", Page, Cusum, Detector)


def fold(
    update: Callable[[State, HourValue, Thresholds], tuple[State, Verdict]],
    state: State,
    hours: Iterable[HourValue],
    thresholds: Thresholds,
    until: datetime,
) -> tuple[State, list[Verdict]]:
    """Judge hours in order, whatever order they came in; of an hour that came twice the later value counts.

    This is how a late event amends its hour: the monitor folds the hours again from the baseline on. Hours at or
    after ``until`` (a clock that ran ahead) are left out, so that they cannot make the true hours "ignored".
    """
    raise NotImplementedError

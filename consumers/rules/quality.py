"""When judged quality has fallen: the required page, and two earlier warnings that come with a promise.

Each rule is a frozen state and ``update(state, hour, thresholds) -> (state, verdict)``; ``fold`` runs one over hours.
``quality_arrays`` has the same decisions for thousands of series at once, ``quality_baseline`` what they compare with.

All three read one hour's mean x of n judged answers beside a baseline of mean b, variance σ² of one answer, variance
τ² between hours and correlation φ of neighbouring hours:

- **page** (the required rule): x < b·(1 − drop) AND x < b − z·√(σ²/n + τ²), ``hours`` times in a row.
- **cusum** (earlier, tuned to one size): S = max(0, S − r − k), alarm at S > h, where r is the hour's standardised
  residual, k half the drop to be found in the residual's units, and h follows from the wanted mean time between false
  alarms by Siegmund's approximation (E. S. Page 1954; D. Siegmund, Sequential Analysis, 1985, §II.6).
- **detector** (earlier, any size, with a bound): M = e·max(M, 1) for each of several drops, alarm when their mean is
  ≥ 1/α; the mean time to a false alarm is ≥ 1/α hours where the baseline is true (J. Shin, A. Ramdas, A. Rinaldo,
  E-detectors, 2022). Beside one that was estimated the table of error rates counts.

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
from math import exp, inf, isfinite, sqrt
from typing import Any, Literal, TypeVar

from ratchet.consumers.rules import residuals
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality_baseline import Baseline, fault
from ratchet.consumers.rules.residuals import Filter

Outcome = Literal["quiet", "suspect", "alarm", "abstain", "ignored"]
HOUR = timedelta(hours=1)
MOST_BET = 2.0  # standard deviations: a bigger bet loses on a fall that is smaller than it bet on


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
    """Judge one more hour by the required page.

    An hour that abstains (or did not come) neither lengthens the run of bad hours nor ends it; after more than
    ``max_gap`` such hours in a row the run lapses, and the verdict says so. Lapsed is not well: it stays ``abstain``.
    """
    wrong, steps = arrival(state.baseline, state.last, hour, thresholds.min_n)
    if steps <= 0:
        return state, ignored(hour, state.last, state.streak, thresholds.hours)
    missing = state.gap + steps - 1 + bool(wrong)
    streak, since = state.streak, state.since
    lapsed = streak > 0 and missing > thresholds.max_gap
    if lapsed:
        wrong = wrong and f"{wrong}; {streak} bad hours lapsed after {missing} hours without a judgement"
        streak, since = 0, None
    if wrong:
        kept = Page(state.baseline, streak, missing, since, hour.hour)
        return kept, Verdict(hour.hour, "abstain", streak, thresholds.hours, since, wrong)
    expected = state.baseline.expected(hour.hour)
    below = expected * (1 - thresholds.drop)
    sure = expected - thresholds.z * sqrt(state.baseline.variance / hour.n + state.baseline.between)
    if not (hour.mean < below and hour.mean < sure):
        calm = Page(state.baseline, last=hour.hour)
        return calm, Verdict(hour.hour, "quiet", 0, thresholds.hours)
    streak, since = streak + 1, since or hour.hour
    outcome: Outcome = "alarm" if streak >= thresholds.hours else "suspect"
    reason = f"{hour.mean:.4g} is below {below:.4g} and {sure:.4g}"
    bad = Page(state.baseline, streak, 0, since, hour.hour)
    return bad, Verdict(hour.hour, outcome, streak, thresholds.hours, since, reason)


def cusum(state: Cusum, hour: HourValue, thresholds: Thresholds) -> tuple[Cusum, Verdict]:
    """Judge one more hour by the CUSUM; it begins again at 0 after an alarm."""
    wrong, steps = arrival(state.baseline, state.last, hour, thresholds.min_n)
    wrong = wrong or _unvaried(state.baseline)
    if steps <= 0:
        return state, ignored(hour, state.last, state.total, inf)
    known, residual, _ = _residual(state.baseline, state.filter, hour, steps, bool(wrong))
    if wrong:
        kept = replace(state, filter=known, last=hour.hour)
        return kept, Verdict(hour.hour, "abstain", state.total, inf, state.since, wrong)
    k = residuals.reference(state.baseline, thresholds.drop)
    h = residuals.siegmund_limit(k, thresholds.mean_hours)
    total = max(0.0, state.total - residual - k)
    since = (state.since or hour.hour) if total > 0 else None
    if total > h:
        begun = Cusum(state.baseline, filter=known, last=hour.hour)
        return begun, Verdict(hour.hour, "alarm", total, h, since, f"cumulative sum {total:.3g} is over {h:.3g}")
    outcome: Outcome = "suspect" if total > h / 2 else "quiet"
    return Cusum(state.baseline, total, known, since, hour.hour), Verdict(hour.hour, outcome, total, h, since)


def detector(state: Detector, hour: HourValue, thresholds: Thresholds) -> tuple[Detector, Verdict]:
    """Judge one more hour by the e-detector; it begins again at 1 after an alarm.

    A bet of size λ (standard deviations) on a fall has e = exp(−λr − λ²/2), whose mean is 1 while nothing fell and
    less while quality rose. The mean of several e-detectors is one (Shin et al. 2022).
    """
    wrong, steps = arrival(state.baseline, state.last, hour, thresholds.min_n)
    wrong = wrong or _unvaried(state.baseline)
    old = state.logs or (0.0,) * len(thresholds.bets)
    if steps <= 0:
        return state, ignored(hour, state.last, _mixture(old), thresholds.mean_hours)
    known, residual, sd = _residual(state.baseline, state.filter, hour, steps, bool(wrong))
    if wrong:
        kept = replace(state, filter=known, last=hour.hour)
        return kept, Verdict(hour.hour, "abstain", _mixture(old), thresholds.mean_hours, state.since, wrong)
    share, _ = residuals.lasting(state.baseline)
    unit = state.baseline.mean * share / sd
    sizes = [min(bet * unit, MOST_BET) for bet in thresholds.bets]
    logs = tuple(max(was, 0.0) - size * residual - size * size / 2 for was, size in zip(old, sizes, strict=True))
    m = _mixture(logs)
    since = (state.since or hour.hour) if max(logs) > 0 else None
    if m >= thresholds.mean_hours:
        begun = Detector(state.baseline, filter=known, last=hour.hour)
        reason = f"evidence {m:.3g} reached {thresholds.mean_hours:g}"
        return begun, Verdict(hour.hour, "alarm", m, thresholds.mean_hours, since, reason)
    outcome: Outcome = "suspect" if m * m > thresholds.mean_hours else "quiet"
    after = Detector(state.baseline, logs, known, since, hour.hour)
    return after, Verdict(hour.hour, outcome, m, thresholds.mean_hours, since)


State = TypeVar("State")


def fold(
    update: Callable[[State, HourValue, Any], tuple[State, Verdict]],
    state: State,
    hours: Iterable[HourValue],
    thresholds: Any,
    until: datetime,
) -> tuple[State, list[Verdict]]:
    """Judge hours in order, whatever order they came in; of an hour that came twice the later value counts.

    This is how a late event amends its hour: the monitor folds the hours again from the baseline on. Hours at or
    after ``until`` (a clock that ran ahead) are left out, so that they cannot make the true hours "ignored".
    """
    latest = {hour.hour: hour for hour in hours if hour.hour < until}
    verdicts = []
    for at in sorted(latest):
        state, verdict = update(state, latest[at], thresholds)
        verdicts.append(verdict)
    return state, verdicts


def arrival(baseline: Baseline, last: datetime | None, hour: HourValue, min_n: float) -> tuple[str, int]:
    """Why an hour cannot be judged (empty if it can), and hours since the last one: 0 or less if it is not later."""
    wrong = fault(hour, min_n)
    steps = 1 if last is None else round((hour.hour - last) / HOUR)
    return (f"no baseline: {baseline.abstains}" if baseline.abstains else wrong), steps


def ignored(hour: HourValue, last: datetime | None, statistic: float, limit: float) -> Verdict:
    """The verdict on an hour that is not after the last one."""
    reason = f"not after {last.isoformat() if last else 'the last hour'}, which was judged: fold the hours again"
    return Verdict(hour.hour, "ignored", statistic, limit, None, reason)


def _unvaried(baseline: Baseline) -> str:
    return "" if baseline.variance + baseline.between > 0 else "the baseline never varied: nothing to measure against"


def _residual(
    baseline: Baseline, known: Filter | None, hour: HourValue, steps: int, blind: bool
) -> tuple[Filter, float, float]:
    predicted = residuals.start(baseline) if known is None else residuals.fade(known, baseline, steps)
    if blind:
        return predicted, 0.0, 0.0
    residual, sd, seen = residuals.observe(predicted, baseline, hour.mean - baseline.expected(hour.hour), hour.n)
    return seen, residual, sd


def _mixture(logs: tuple[float, ...]) -> float:
    return sum(exp(min(value, 700.0)) for value in logs) / len(logs)

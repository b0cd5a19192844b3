"""The backtest: each rule over hours with nothing wrong, then over the same kind of hours with a shift in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil

import numpy as np

from ratchet.consumers.report import HOUR_METRICS as METRICS
from ratchet.consumers.rules import recorded_lengths, shift_simulation, simulation
from ratchet.consumers.rules.backtest import RATES, SCORES, Shift, judge, mean_rule, resample
from ratchet.consumers.rules.drift_arrays import DriftLimits
from ratchet.consumers.rules.following import rate_thresholds, thresholds
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality_arrays import Bools
from ratchet.consumers.rules.shift_simulation import KINDS, SIGMA, Traffic
from ratchet.consumers.rules.simulation import WARM, Delay, FalseAlarms, Noise, Rule
from ratchet.schemas.drift_policy import DriftPolicy

__all__ = ["METRICS", "Result", "generated", "recorded"]
HOURS, HORIZON, BASELINE = 480, 240, 336
LEVELS = {"refusals": 0.02, "uncertainty": 0.05, "errors": 0.01}


@dataclass(frozen=True, slots=True)
class Result:
    """What one rule said of one shift."""

    shift: str
    metric: str
    rule: str
    false_alarms: FalseAlarms
    delay: Delay
    note: str = ""


def recorded(
    shifts: Sequence[Shift],
    hours: Mapping[str, Sequence[HourValue]],
    days: int,
    seed: int,
    policy: DriftPolicy | None = None,
    lengths: Mapping[str, Mapping[datetime, Mapping[int, int]]] | None = None,
) -> Iterator[Result]:
    """Judge shifts in recorded hours, resampled to as many days as wanted.

    Args:
        shifts: of metrics that ``hours`` has.
        hours: by metric, as ``report.hours`` gives them.
        days: simulated, rounded up to whole series of 20 days.
        seed: the same seed gives the same figures.
        policy: the task's, which sets the rules; the default one without it.
        lengths: by metric, as ``report.length_hours`` gives them: lengths are judged by their distribution, as the
            monitor does; a metric that is not in it by its hours' means.

    Raises:
        ValueError: a metric with fewer than 72 hours with enough observations.
    """
    policy = policy or DriftPolicy()
    series = max(2, ceil(days * 24 / HOURS))
    for number, shift in enumerate(shifts):
        random = np.random.default_rng([seed, number])
        least = policy.min_n
        if lengths and shift.metric in lengths:
            yield from _lengths(random, shift, lengths[shift.metric], series, policy)
            continue
        try:
            mean, n, base = resample(random, hours[shift.metric], least, series, BASELINE + HOURS)
            moved, moved_n, _ = resample(random, hours[shift.metric], least, series, BASELINE + WARM + HORIZON)
        except ValueError as error:
            raise ValueError(f"{shift.metric}: {error}") from None
        rules = _rules(shift.metric, policy)
        if shift.metric not in SCORES:
            limits = shift_simulation.limits(shift.metric, policy)
            rules["drift"] = mean_rule(random, limits, relative=shift.metric not in RATES)
        calm = judge(rules, mean, n, base.variance, BASELINE, None, 0)
        found = judge(rules, moved, moved_n, base.variance, BASELINE, shift, WARM)
        note = f"{shift.metric}: resampled from {base.hours} recorded hours; what was wrong in them counts as noise"
        yield from _results(shift, calm, found, note)


def generated(
    shifts: Sequence[Shift],
    noise: Noise,
    days: int,
    seed: int,
    policy: DriftPolicy | None = None,
) -> Iterator[Result]:
    """Judge shifts in generated hours; arguments as ``recorded`` has them, ``noise`` says how hours vary."""
    policy = policy or DriftPolicy()
    series = max(2, ceil(days * 24 / HOURS))
    for number, shift in enumerate(shifts):
        random = np.random.default_rng([seed, number])
        level = LEVELS.get(shift.metric, 1.0)
        rules = _rules(shift.metric, policy)

        def change(value: float, shift: Shift = shift) -> float:
            return float(shift.put(np.array([value]))[0] - value)

        note = ""
        kind = KINDS[shift.metric]
        if shift.metric in RATES:
            calm = simulation.rate(random, rules, level, noise, series, HOURS)
            found = simulation.rate(random, rules, level, noise, series, WARM + HORIZON, change(level))
            note = f"{shift.metric}: a rate of {level:.0%}"
        elif shift.metric in SCORES:
            # a score shifted in points is shifted from 0.8
            size = shift.size if shift.relative else shift.size / 0.8
            calm = simulation.quality(random, rules, noise, series, HOURS)
            found = simulation.quality(random, rules, noise, series, WARM + HORIZON, size)
        else:
            calm, found = {}, {}
            note = (
                f"{shift.metric}: lognormal, σ {SIGMA}"
                if kind == "lengths"
                else f"{shift.metric}: σ {SIGMA} of the mean"
            )
        if shift.metric not in SCORES:
            traffic = Traffic(kind, noise.n, noise.between, noise.phi, level if kind == "rates" else 0.0, SIGMA)
            limits = shift_simulation.limits(shift.metric, policy)
            size = change(level) if kind == "rates" else shift.size
            calm["drift"] = _raised(random, traffic, limits, series, HOURS, 0.0)
            found["drift"] = _raised(random, traffic, limits, series, WARM + HORIZON, size)
        yield from _results(shift, calm, found, note)


def _lengths(
    random: np.random.Generator,
    shift: Shift,
    hours: Mapping[datetime, Mapping[int, int]],
    series: int,
    policy: DriftPolicy,
) -> Iterator[Result]:
    limits = shift_simulation.limits(shift.metric, policy)
    try:
        known = recorded_lengths.regroup(hours, shift.size, policy.min_n)
    except ValueError as error:
        raise ValueError(f"{shift.metric}: {error}") from None

    def run(count: int, warm: int | None) -> Bools:
        each = [
            recorded_lengths.judge(random, known, limits, baseline=BASELINE, count=count, warm=warm)
            for _ in range(series)
        ]
        return np.concatenate(each)

    note = f"{shift.metric}: resampled from {known.hours} recorded hours, by their distributions"
    yield from _results(shift, {"drift": run(HOURS, None)}, {"drift": run(WARM + HORIZON, WARM)}, note)


def _raised(
    random: np.random.Generator, traffic: Traffic, limits: DriftLimits, series: int, count: int, change: float
) -> Bools:
    effect, p = shift_simulation.windows(random, traffic, series, count, change=change)
    return shift_simulation.raised(random, traffic, limits, effect, p)


def _rules(metric: str, policy: DriftPolicy) -> dict[str, Rule]:
    """The rules that follow a metric's hours."""
    if metric in SCORES:
        return simulation.quality_rules(thresholds(policy))
    return simulation.rate_rules(rate_thresholds(policy)) if metric in RATES else {}


def _results(shift: Shift, calm: dict[str, Bools], found: dict[str, Bools], note: str) -> Iterator[Result]:
    for rule, raised in calm.items():
        false = simulation.false_alarms(raised)
        yield Result(shift.text, shift.metric, rule, false, simulation.delay(found[rule], WARM), note)

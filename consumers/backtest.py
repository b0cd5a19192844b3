"""The backtest: each rule over hours with nothing wrong, then over the same kind of hours with a shift in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from ratchet.consumers.report import HOUR_METRICS as METRICS
from ratchet.consumers.rules import drift_simulation, simulation
from ratchet.consumers.rules.backtest import RATES, SCORES, Shift, judge, resample
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality import Thresholds
from ratchet.consumers.rules.quality_arrays import Bools
from ratchet.consumers.rules.rates import RateThresholds
from ratchet.consumers.rules.simulation import WARM, Delay, FalseAlarms, Noise, Rule

__all__ = ["METRICS", "Result", "generated", "recorded"]
HOURS, HORIZON, BASELINE = 480, 240, 336
LEVELS = {"refusals": 0.02, "uncertainty": 0.05, "errors": 0.01}
LENGTHS = ("answer_length", "prompt_length")


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
    thresholds: Thresholds | None = None,
    rates: RateThresholds | None = None,
) -> Iterator[Result]:
    """Judge shifts in recorded hours, resampled to as many days as wanted.

    Args:
        shifts: of metrics that ``hours`` has.
        hours: by metric, as ``report.hours`` gives them.
        days: simulated, rounded up to whole series of 20 days.
        seed: the same seed gives the same figures.
        thresholds: of the rules over scores; the default ones without it.
        rates: of the rules over rates; likewise.

    Raises:
        ValueError: a metric with fewer than 72 hours with enough observations.
    """
    thresholds, rates = thresholds or Thresholds(), rates or RateThresholds()
    series = max(2, ceil(days * 24 / HOURS))
    for number, shift in enumerate(shifts):
        random = np.random.default_rng([seed, number])
        least = rates.min_n if shift.metric in RATES else thresholds.min_n
        try:
            mean, n, base = resample(random, hours[shift.metric], least, series, BASELINE + HOURS)
            moved, moved_n, _ = resample(random, hours[shift.metric], least, series, BASELINE + WARM + HORIZON)
        except ValueError as error:
            raise ValueError(f"{shift.metric}: {error}") from None
        rules = _rules(random, shift.metric, thresholds, rates)
        calm = judge(rules, mean, n, base.variance, BASELINE, None, 0)
        found = judge(rules, moved, moved_n, base.variance, BASELINE, shift, WARM)
        note = f"{shift.metric}: resampled from {base.hours} recorded hours; what was wrong in them counts as noise"
        yield from _results(shift, calm, found, note)


def generated(
    shifts: Sequence[Shift],
    noise: Noise,
    days: int,
    seed: int,
    thresholds: Thresholds | None = None,
    rates: RateThresholds | None = None,
) -> Iterator[Result]:
    """Judge shifts in generated hours; arguments as ``recorded`` has them, ``noise`` says how hours vary."""
    thresholds, rates = thresholds or Thresholds(), rates or RateThresholds()
    series = max(2, ceil(days * 24 / HOURS))
    for number, shift in enumerate(shifts):
        random = np.random.default_rng([seed, number])
        level = LEVELS.get(shift.metric, 1.0)
        rules = _rules(random, shift.metric, thresholds, rates)

        def change(value: float, shift: Shift = shift) -> float:
            return float(shift.put(np.array([value]))[0] - value)

        note = ""
        if shift.metric in RATES:
            calm = simulation.rate(random, rules, level, noise, series, HOURS)
            found = simulation.rate(random, rules, level, noise, series, WARM + HORIZON, change(level))
            note = f"{shift.metric}: a rate of {level:.0%}"
        elif shift.metric in LENGTHS:
            calm = drift_simulation.lengths(random, noise, series, HOURS)
            found = drift_simulation.lengths(random, noise, series, WARM + HORIZON, shift.size)
            note = f"{shift.metric}: lognormal, σ {drift_simulation.SIGMA}"
        else:
            wide = noise if shift.metric in SCORES else replace(noise, cv=drift_simulation.SIGMA)
            # a score shifted in points is shifted from 0.8
            size = shift.size if shift.relative else shift.size / 0.8
            calm = simulation.quality(random, rules, wide, series, HOURS)
            found = simulation.quality(random, rules, wide, series, WARM + HORIZON, size)
        yield from _results(shift, calm, found, note)


def _rules(random: np.random.Generator, metric: str, thresholds: Thresholds, rates: RateThresholds) -> dict[str, Rule]:
    if metric in SCORES:
        return simulation.quality_rules(thresholds)
    relative = metric not in RATES
    drift = {"drift": drift_simulation.mean_rule(random, relative)}
    return drift if relative else simulation.rate_rules(rates) | drift


def _results(shift: Shift, calm: dict[str, Bools], found: dict[str, Bools], note: str) -> Iterator[Result]:
    for rule, raised in calm.items():
        false = simulation.false_alarms(raised)
        yield Result(shift.text, shift.metric, rule, false, simulation.delay(found[rule], WARM), note)

"""What would the rules have said: shifts of a stated size put into hours, recorded or generated.

Recorded hours become as many days as are wanted by a block bootstrap (H. R. Künsch 1989): blocks of 24 hours in their
order, drawn with replacement, so that hours keep their correlation inside a day, gaps and quiet nights included. The
week's pattern is taken out first, as the rules' baseline does. Nothing in them is known to be right: a
fault in the recording counts as noise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from ratchet.consumers.rules import quality_arrays as arrays
from ratchet.consumers.rules.drift_arrays import DriftLimits, among, mean_distances, persistent
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality_arrays import Baselines, Bools, Floats
from ratchet.consumers.rules.quality_baseline import Baseline, estimate, fault
from ratchet.consumers.rules.simulation import Rule

RATES = ("refusals", "uncertainty", "errors")
SCORES = ("judge_score", "satisfaction", "completion")
BLOCK = 24
LEAST_HOURS = 72
_SHIFT = re.compile(r"(?P<metric>[a-z_]+)=(?P<size>[+-][0-9]+(\.[0-9]+)?)(?P<unit>%|pp)")


@dataclass(frozen=True, slots=True)
class Shift:
    """A metric's change: ``size`` as a share of its value (``relative``) or added to it."""

    metric: str
    size: float
    relative: bool
    text: str

    def put(self, mean: Floats) -> Floats:
        """The hours with the shift in them; a rate stays within 0 and 1."""
        moved = mean * (1 + self.size) if self.relative else mean + self.size
        return np.clip(moved, 0.0, 1.0) if self.metric in RATES else moved


def parse_shift(text: str, metrics: Sequence[str]) -> Shift:
    """Read ``judge_score=-7%`` or ``refusals=+5pp``.

    Args:
        text: what a person wrote.
        metrics: the names that are known.

    Raises:
        ValueError: neither; it names the value and what is allowed.
    """
    found = _SHIFT.fullmatch(text.replace(" ", ""))
    if found is None:
        raise ValueError(f"shift {text!r}; allowed: <metric>=<sign><number>% or pp, such as judge_score=-7%")
    metric, size = found["metric"], float(found["size"]) / 100
    if metric not in metrics:
        raise ValueError(f"shift {text!r} of metric {metric!r}; allowed: {', '.join(metrics)}")
    if size == 0 or not -1 < size <= 10:
        raise ValueError(f"shift {text!r}; allowed: more than -100% and up to +1000%, and not 0")
    if found["unit"] == "pp" and metric not in SCORES + RATES:
        raise ValueError(f"shift {text!r} in points; allowed for {', '.join(SCORES + RATES)}; the rest in %")
    return Shift(metric, size, found["unit"] == "%", text)


def resample(
    random: np.random.Generator, hours: Sequence[HourValue], min_n: float, series: int, length: int
) -> tuple[Floats, Floats, Baseline]:
    """Recorded hours as ``series`` of ``length`` hours: means, observations and the baseline of the recording.

    Raises:
        ValueError: fewer than 72 hours with enough observations.
    """
    base = estimate(hours, min_n=min_n, min_hours=LEAST_HOURS)
    if base.abstains:
        raise ValueError(f"recorded traffic: {base.abstains}; allowed: at least {LEAST_HOURS} with n >= {min_n:g}")
    latest = {hour.hour: hour for hour in hours if not fault(hour, min_n)}
    first = min(latest)
    span = round((max(latest) - first) / timedelta(hours=1)) + 1
    mean, n = np.full(span, np.nan), np.zeros(span)
    for at, hour in latest.items():
        place = round((at - first) / timedelta(hours=1))
        mean[place] = hour.mean - (base.expected(at) - base.mean)
        n[place] = hour.n
    starts = random.integers(0, span, (series, -(-length // BLOCK)))
    picked = (starts[:, :, None] + np.arange(BLOCK)).reshape(series, -1)[:, :length] % span
    return mean[picked], n[picked], base


def judge(
    rules: dict[str, Rule],
    mean: Floats,
    n: Floats,
    variance: float,
    baseline_hours: int,
    shift: Shift | None,
    warm: int,
) -> dict[str, Bools]:
    """Where each rule is raised over hours whose first ``baseline_hours`` are its baseline.

    ``shift`` sets in ``warm`` hours after the baseline.
    """
    before, live = slice(None, baseline_hours), slice(baseline_hours, None)
    base: Baselines = arrays.estimate(mean[:, before], n[:, before], np.full(len(mean), variance))
    moved = mean[:, live].copy()
    if shift is not None:
        moved[:, warm:] = shift.put(moved[:, warm:])
    return {name: rule(moved, n[:, live], base) for name, rule in rules.items()}


def mean_rule(random: np.random.Generator, rule: DriftLimits, relative: bool) -> Rule:
    """The rule over shifts of a mean (``relative``) or a rate beside the whole baseline, over hours' means alone."""

    def moved(mean: Floats, n: Floats, base: Baselines) -> Bools:
        centre = base.mean[:, None]
        spread = base.variance[:, None] if relative else centre * (1 - centre)
        judged = np.isfinite(mean) & (n >= rule.min_n)
        seen = np.where(judged, mean, centre)
        effect, p = mean_distances(seen, n, spread, centre, (base.n * base.hours)[:, None], relative)
        return persistent(among(random, p, judged & (effect >= rule.effect), rule), judged, rule.hours)

    return moved

"""What the sequential rules do in the long run: simulated hours, counted false alarms and delays.

Hours are made as the rules' model says (normal hour means, AR(1) effects between hours; binomial counts for rates with
effects on the log scale), each series with a baseline estimated from hours of its own, so that a baseline's error
counts as it does in life. Everything is seeded by the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ratchet.consumers.rules import quality_arrays as arrays
from ratchet.consumers.rules.intervals import events_per
from ratchet.consumers.rules.quality import Thresholds
from ratchet.consumers.rules.quality_arrays import Baselines, Bools, Floats
from ratchet.consumers.rules.rates import RateThresholds

CV = 0.9 / 4.2  # standard deviation of one judged answer over the mean: the research's 4.2 ± 0.9 of 5
WARM = 48  # hours before a shift, so that it does not find the rules at their start


@dataclass(frozen=True, slots=True)
class Noise:
    """How a metric varies: ``n`` observations an hour, ``between`` SD of hours over the mean, their correlation."""

    n: float
    between: float = 0.0
    phi: float = 0.0
    cv: float = CV
    baseline_hours: int = 336


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """``count`` alarms in ``days`` in which nothing was wrong; ``per_year`` with its 95% interval."""

    count: int
    days: float
    per_year: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Delay:
    """Hours from a shift to the alarm: ``found`` is the share within ``horizon`` hours.

    ``mean`` counts what was not found as ``horizon``; ``median`` and ``p90`` are None where it was not found so often.
    """

    found: float
    mean: float
    median: float | None
    p90: float | None
    horizon: int
    series: int


Rule = Callable[[Floats, Floats, Baselines], Bools]


def quality_rules(thresholds: Thresholds) -> dict[str, Rule]:
    """The rules over judged quality by name; ``drop_alone`` is the page without its second condition."""
    alone = Thresholds(
        thresholds.drop, thresholds.hours, 0.0, thresholds.min_n, thresholds.max_gap, thresholds.mean_hours
    )
    return {
        "drop_alone": lambda mean, n, base: arrays.page(mean, n, base, alone),
        "page": lambda mean, n, base: arrays.page(mean, n, base, thresholds),
        "cusum": lambda mean, n, base: arrays.cusum(mean, n, base, thresholds),
        "detector": lambda mean, n, base: arrays.detector(mean, n, base, thresholds),
    }


def rate_rules(thresholds: RateThresholds) -> dict[str, Rule]:
    """The rules over refusal and uncertainty rates by name."""
    return {"bernoulli": lambda mean, n, base: arrays.bernoulli(mean, n, base, thresholds)}


def effects(random: np.random.Generator, series: int, hours: int, phi: float) -> Floats:
    """Standard normal AR(1) effects, stationary from the first hour on."""
    drive = random.standard_normal((hours, series))
    made = np.empty_like(drive)
    made[0] = drive[0]
    for hour in range(1, hours):
        made[hour] = phi * made[hour - 1] + np.sqrt(1 - phi * phi) * drive[hour]
    return made.T


def scores(random: np.random.Generator, noise: Noise, series: int, hours: int, change: Floats | float = 0.0) -> Floats:
    """Hour means of a metric with mean 1; ``change`` is added (−0.05 is 5% less), a number or one for each hour."""
    sampling = random.standard_normal((series, hours)) * (noise.cv / np.sqrt(noise.n))
    made: Floats = 1 + noise.between * effects(random, series, hours, noise.phi) + sampling + change
    return made


def counts(
    random: np.random.Generator, rate: float, noise: Noise, series: int, hours: int, change: Floats | float = 0.0
) -> Floats:
    """Hourly rates: binomial counts over n; ``noise.between`` is the SD of hours over the rate, lognormal."""
    scale = np.sqrt(np.log1p(noise.between**2))
    each = rate * np.exp(scale * effects(random, series, hours, noise.phi) - scale**2 / 2) + change
    made: Floats = random.binomial(int(noise.n), np.clip(each, 0, 1), (series, hours)) / noise.n
    return made


def false_alarms(raised: Bools, width: int = 1) -> FalseAlarms:
    """Count alarms over series of windows of ``width`` hours.

    Series with a bad baseline alarm together, and the interval knows it.
    """
    each = raised.sum(1)
    count, days = int(each.sum()), raised.size * width / 24
    dispersion = max(1.0, float(each.var(ddof=1) / each.mean())) if count and len(each) > 1 else 1.0
    low, high = events_per(count, days / 365, dispersion)
    return FalseAlarms(count, days, count * 365 / days, low, high)


def delay(raised: Bools, since: int) -> Delay:
    """Hours from column ``since`` on to each series' first alarm: an alarm in the shift's first hour is 1."""
    after = raised[:, since:]
    horizon = after.shape[1]
    found = after.any(1)
    took = np.where(found, after.argmax(1) + 1, horizon).astype(np.float64)
    share = float(found.mean())
    middle, late = (float(np.quantile(took, q)) if share > q else None for q in (0.5, 0.9))
    return Delay(share, float(took.mean()), middle, late, horizon, len(after))


def quality(
    random: np.random.Generator, rules: dict[str, Rule], noise: Noise, series: int, hours: int, change: float = 0.0
) -> dict[str, Bools]:
    """Where each rule is raised over simulated judged quality; ``change`` sets in after ``WARM`` hours."""
    whole = scores(random, noise, series, noise.baseline_hours + hours)
    n = np.full(whole.shape, noise.n)
    b = noise.baseline_hours
    spread = np.full(series, noise.cv**2)
    truth = arrays.known(1.0, noise.cv**2, noise.between**2, noise.phi, noise.n, series)
    base = arrays.estimate(whole[:, :b], n[:, :b], spread) if b else truth
    live = whole[:, b:]
    live[:, WARM:] += change
    return {name: rule(live, n[:, b:], base) for name, rule in rules.items()}


def rate(
    random: np.random.Generator,
    rules: dict[str, Rule],
    level: float,
    noise: Noise,
    series: int,
    hours: int,
    change: float = 0.0,
) -> dict[str, Bools]:
    """Where each rule is raised over simulated rates around ``level``; ``change`` sets in after ``WARM`` hours."""
    b = noise.baseline_hours
    before = counts(random, level, noise, series, b)
    n = np.full((series, hours), noise.n)
    rates = before.mean(1)
    base = arrays.estimate(before, np.full(before.shape, noise.n), rates * (1 - rates))
    moved = np.where(np.arange(hours) >= WARM, change, 0.0)
    live = counts(random, level, noise, series, hours, moved)
    return {name: rule(live, n, base) for name, rule in rules.items()}

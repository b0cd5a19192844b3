"""The sequential rules of ``quality`` and ``rates`` for thousands of series at once: the same decisions, in numpy.

Rows are series, columns consecutive hours. An hour abstains where its mean is NaN or its n below ``min_n``. Each
function returns, for every series and hour, whether the rule raises there: cusum, detector and bernoulli where they
cross, the page where its condition begins to hold (the hours after it belong to the same page).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.consumers.rules import quality, quality_baseline, rates, residuals

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Baselines:
    """``quality_baseline.Baseline`` for each series: arrays of one length, without hours of the week."""

    mean: Floats
    variance: Floats
    between: Floats
    phi: Floats
    n: Floats
    hours: int

    def each(self) -> list[quality_baseline.Baseline]:
        """One by one, for what is computed once a series."""
        columns = zip(self.mean, self.variance, self.between, self.phi, self.n, strict=True)
        return [
            quality_baseline.Baseline(float(m), float(v), float(b), float(p), float(n), self.hours)
            for m, v, b, p, n in columns
        ]


def known(mean: float, variance: float, between: float, phi: float, n: float, series: int) -> Baselines:
    """The truth itself as the baseline of every series: what a rule does when its baseline has no error."""
    full = (np.full(series, value, dtype=np.float64) for value in (mean, variance, between, phi, n))
    return Baselines(*full, hours=10**6)


def estimate(mean: Floats, n: Floats, variance: Floats) -> Baselines:
    """``quality_baseline.estimate`` for hours that are all there and before two weeks' offsets.

    Args:
        mean, n: of each hour; every series has every hour.
        variance: σ² of one observation, of each series.
    """
    k = mean.shape[1]
    typical = np.median(n, axis=1)
    centre = (n * mean).sum(1) / n.sum(1)
    rest = mean - centre[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = n / variance[:, None]
        total = weights.sum(1)
        middle = (weights * rest).sum(1) / total
        q = (weights * (rest - middle[:, None]) ** 2).sum(1)
        laird = np.maximum(0.0, (q - (k - 1)) / (total - (weights**2).sum(1) / total))
    alike = rest - rest.mean(1, keepdims=True)
    between = np.where(variance > 0, laird, (alike**2).sum(1) / (k - 1))
    products = (alike[:, 1:] * alike[:, :-1]).mean(1)
    phi = np.array(
        [quality_baseline.autocorrelation(float(p), float(b), k) if b > 0 else 0.0 for p, b in zip(products, between)]
    )
    between = between / (1 - np.array([quality_baseline.mean_correlation(float(p), k) for p in phi]))
    spread = between[:, None] + variance[:, None] / n
    last = 1 / np.where(spread > 0, spread, 1.0)
    shift = (last * rest).sum(1) / last.sum(1)
    return Baselines(centre + shift, variance, between, phi, typical, k)


def page(mean: Floats, n: Floats, base: Baselines, thresholds: quality.Thresholds) -> Bools:
    """Where the required page is raised."""
    judged = _judged(mean, n, thresholds.min_n)
    error = np.sqrt(base.variance[:, None] / np.where(judged, n, 1.0) + base.between[:, None])
    centre = base.mean[:, None]
    bad = judged & (mean < centre * (1 - thresholds.drop)) & (mean < centre - thresholds.z * error)
    raised = np.zeros(mean.shape, dtype=bool)
    streak = np.zeros(len(mean), dtype=np.int64)
    gap = np.zeros(len(mean), dtype=np.int64)
    for hour in range(mean.shape[1]):
        here = judged[:, hour]
        gap = np.where(here, 0, gap + 1)
        streak = np.where(here, np.where(bad[:, hour], streak + 1, 0), np.where(gap > thresholds.max_gap, 0, streak))
        raised[:, hour] = here & (streak == thresholds.hours)
    return raised


def cusum(mean: Floats, n: Floats, base: Baselines, thresholds: quality.Thresholds) -> Bools:
    """Where the CUSUM crosses."""
    each = base.each()
    k = np.array([residuals.reference(one, thresholds.drop) for one in each])
    h = np.array([residuals.siegmund_limit(float(one), thresholds.mean_hours) for one in k])
    raised = np.zeros(mean.shape, dtype=bool)
    total = np.zeros(len(mean))
    for hour, here, residual, _ in _residuals(mean, n, base, thresholds.min_n):
        total = np.where(here, np.maximum(0.0, total - residual - k), total)
        crossed = here & (total > h)
        raised[:, hour] = crossed
        total = np.where(crossed, 0.0, total)
    return raised


def detector(mean: Floats, n: Floats, base: Baselines, thresholds: quality.Thresholds) -> Bools:
    """Where the e-detector reaches 1/α."""
    unit = base.mean * np.array([residuals.lasting(one)[0] for one in base.each()])
    bets = np.array(thresholds.bets)
    raised = np.zeros(mean.shape, dtype=bool)
    logs = np.zeros((len(mean), len(bets)))
    for hour, here, residual, sd in _residuals(mean, n, base, thresholds.min_n):
        size = np.minimum(bets * (unit / sd)[:, None], quality.MOST_BET)
        step = np.maximum(logs, 0.0) - size * residual[:, None] - size * size / 2
        logs = np.where(here[:, None], step, logs)
        crossed = here & (np.exp(np.minimum(logs, 700.0)).mean(1) >= thresholds.mean_hours)
        raised[:, hour] = crossed
        logs = np.where(crossed[:, None], 0.0, logs)
    return raised


def bernoulli(mean: Floats, n: Floats, base: Baselines, thresholds: rates.RateThresholds) -> Bools:
    """Where the Bernoulli CUSUM crosses."""
    least = 1 / (base.n * base.hours + 2)
    p0 = np.minimum(np.maximum(base.mean, least), 1 - 2 * least)
    p1 = np.minimum(p0 + thresholds.rise, 1 - least)
    up, down = np.log(p1 / p0), np.log((1 - p1) / (1 - p0))
    lasting = base.between * (1 + base.phi) / (1 - base.phi)
    judged = _judged(mean, n, thresholds.min_n) & (mean >= 0) & (mean <= 1)
    spread = p0 * (1 - p0)
    limit = np.log(thresholds.mean_hours)
    raised = np.zeros(mean.shape, dtype=bool)
    total = np.zeros(len(mean))
    for hour in range(mean.shape[1]):
        here = judged[:, hour]
        rate = np.where(here, mean[:, hour], 0.0)
        weight = spread / (spread / np.where(here, n[:, hour], 1.0) + lasting)
        total = np.where(here, np.maximum(0.0, total + weight * (rate * up + (1 - rate) * down)), total)
        crossed = here & (total >= limit)
        raised[:, hour] = crossed
        total = np.where(crossed, 0.0, total)
    return raised


def _judged(mean: Floats, n: Floats, min_n: float) -> Bools:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(mean) & np.isfinite(n) & (n >= min_n))


def _residuals(mean: Floats, n: Floats, base: Baselines, min_n: float) -> Any:
    """For each hour: its number, which series are judged, their standardised residuals and their deviations."""
    judged = _judged(mean, n, min_n) & (base.variance + base.between > 0)[:, None]
    effect, spread = np.zeros(len(mean)), base.between.copy()
    for hour in range(mean.shape[1]):
        if hour:
            effect, spread = base.phi * effect, base.between + base.phi**2 * (spread - base.between)
        here = judged[:, hour]
        noise = base.variance / np.where(here, n[:, hour], 1.0)
        total = np.where(here, spread + noise, 1.0)
        gain = spread / total
        ahead = np.where(here, mean[:, hour], 0.0) - base.mean - effect
        yield hour, here, ahead / np.sqrt(total), np.sqrt(total)
        effect = np.where(here, effect + gain * ahead, effect)
        spread = np.where(here, spread * (1 - gain), spread)

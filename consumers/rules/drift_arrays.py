"""Drift rules for thousands of hours at once: effect AND significance AND persistence.

An hour counts as moved where the effect is over its limit and the p-value holds among the p-values of all the hour's
metrics (Y. Benjamini and Y. Hochberg 1995); the rule is raised where that is so ``hours`` judged hours in a row. The
effects and tests are those of ``measuring``: PSI over tenths of the baseline with Kolmogorov–Smirnov, the relative
change of a mean or the difference of a rate with z (Welch's t at the counts at which these rules speak).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.consumers.rules.distances import FEW
from ratchet.consumers.rules.quality_arrays import Bools, Floats


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """What counts as moved: ``effect``, false-discovery rate ``q`` among ``metrics``, ``hours`` in a row, ``min_n``."""

    effect: float
    q: float = 0.05
    hours: int = 3
    metrics: int = 14
    min_n: int = 30


def benjamini_hochberg(p: Floats, q: float) -> Bools:
    """Which of the p-values along the last axis are rejected at false-discovery rate ``q``; a NaN is not counted."""
    order = np.argsort(p, axis=-1)
    ranked = np.take_along_axis(p, order, -1)
    counted = np.isfinite(p).sum(-1, keepdims=True)
    under = ranked < q * np.arange(1, p.shape[-1] + 1) / np.maximum(counted, 1)
    last = np.where(under.any(-1), p.shape[-1] - 1 - under[..., ::-1].argmax(-1), -1)
    kept = np.arange(p.shape[-1]) <= last[..., None]
    made = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(made, order, kept, -1)
    return made


def among(random: np.random.Generator, p: Floats, asked: Bools, limits: DriftLimits) -> Bools:
    """Where ``asked`` and p holds among the p-values of ``metrics`` − 1 others in which nothing moved."""
    others = random.random((int(asked.sum()), limits.metrics - 1))
    held = np.zeros(p.shape, dtype=bool)
    held[asked] = benjamini_hochberg(np.column_stack([p[asked], others]), limits.q)[:, 0]
    return held


def persistent(moved: Bools, judged: Bools, hours: int) -> Bools:
    """Where the rule is raised: moved in ``hours`` judged hours in a row; hours that abstain keep the run."""
    raised = np.zeros(moved.shape, dtype=bool)
    streak = np.zeros(len(moved), dtype=np.int64)
    for hour in range(moved.shape[1]):
        here = judged[:, hour]
        streak = np.where(here, np.where(moved[:, hour], streak + 1, 0), streak)
        raised[:, hour] = here & (streak == hours)
    return raised


def share_distances(before: Floats, now: Floats, texts: Floats, texts_now: Floats) -> tuple[Floats, Floats]:
    """Jensen–Shannon distance of terms' or topics' counts, and the p of χ² in which a text is one observation.

    The array twin of ``measuring.shares``: counts are scaled down to the number of texts, and what expects fewer than 5
    is one cell, before the test.

    Args:
        before: counts of the baseline, (series, windows or 1, k).
        now: counts of each window, (series, windows, k).
        texts: how many texts ``before`` is of, without the last axis.
        texts_now: likewise ``now``.
    """
    from scipy.special import chdtrc

    one, other = (side / side.sum(-1, keepdims=True) for side in (before, now))
    middle = (one + other) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(side > 0, side * np.log(side / middle), 0.0) for side in (one, other)]
    distance = np.sqrt(np.maximum(0.0, (parts[0] + parts[1]).sum(-1) / 2))
    scaled = [
        side * np.minimum(1.0, number[..., None] / side.sum(-1, keepdims=True))
        for side, number in ((before, texts), (now, texts_now))
    ]
    total, total_now = (side.sum(-1, keepdims=True) for side in scaled)
    both = scaled[0] + scaled[1]
    few = both * np.minimum(total, total_now) / (total + total_now) < FEW
    statistic = np.zeros(both.shape[:-1])
    rest = [np.where(few, side, 0.0).sum(-1, keepdims=True) for side in np.broadcast_arrays(*scaled)]
    kept = [np.where(few, 0.0, side) for side in np.broadcast_arrays(*scaled)]
    table = [np.concatenate([side, extra], -1) for side, extra in zip(kept, rest, strict=True)]
    column = table[0] + table[1]
    for side, sum_ in zip(table, (total, total_now), strict=True):
        expected = column * sum_ / (total + total_now)
        statistic += np.where(column > 0, (side - expected) ** 2 / np.where(column > 0, expected, 1.0), 0.0).sum(-1)
    cells = (column > 0).sum(-1)
    return distance, np.where(cells > 1, chdtrc(np.maximum(cells - 1, 1), statistic), 1.0)


def length_distances(before: Floats, now: Floats, starts: NDArray[np.intp] | None = None) -> tuple[Floats, Floats]:
    """PSI over tenths and the p of Kolmogorov–Smirnov, for hours whose lengths are counted in bins.

    Args:
        before: counts of the baseline, (series, hours, bins) or (series, 1, bins); bins are its quantiles, ten or a
            multiple of it.
        now: counts of each hour, (series, hours, bins), at least one a row.
        starts: the first bin of each group that PSI is over; tenths of as many bins each without it.
    """
    from scipy.special import kolmogorov

    n, n_before = now.sum(-1), before.sum(-1)
    shares, shares_now = before / n_before[..., None], now / n[..., None]
    gap = np.abs(np.cumsum(shares_now, -1) - np.cumsum(shares, -1)).max(-1)
    first = np.arange(0, before.shape[-1], before.shape[-1] // 10) if starts is None else starts
    one, other = (np.maximum(np.add.reduceat(side, first, -1), 1e-4) for side in (shares, shares_now))
    effect = ((other - one) * np.log(other / one)).sum(-1)
    return effect, kolmogorov(gap * np.sqrt(n * n_before / (n + n_before)))


def mean_distances(
    mean: Floats, n: Floats, variance: Floats, base: Floats, base_n: Floats, relative: bool
) -> tuple[Floats, Floats]:
    """The size of a mean's change (relative, or in points) and its two-sided p, for each hour.

    Args:
        mean: of each hour.
        n: observations of each hour.
        variance: σ² of one observation, (series, 1).
        base: baseline's mean, (series, 1).
        base_n: its observations, (series, 1).
        relative: whether the effect is a share of the baseline's mean.
    """
    from scipy.special import ndtr

    error = np.sqrt(variance * (1 / np.maximum(n, 1) + 1 / base_n))
    moved = np.abs(mean - base)
    p = 2 * ndtr(-moved / np.where(error > 0, error, 1.0))
    return moved / base if relative else moved, np.where(error > 0, p, np.where(moved > 0, 0.0, 1.0))

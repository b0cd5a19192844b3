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


def length_distances(before: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """PSI over tenths and the p of Kolmogorov–Smirnov, for hours whose lengths are counted in bins.

    Args:
        before: counts of the baseline, (series, hours, bins) or (series, 1, bins); bins are its quantiles, ten or a
            multiple of it.
        now: counts of each hour, (series, hours, bins), at least one a row.
    """
    from scipy.special import kolmogorov

    n, n_before = now.sum(-1), before.sum(-1)
    shares, shares_now = before / n_before[..., None], now / n[..., None]
    gap = np.abs(np.cumsum(shares_now, -1) - np.cumsum(shares, -1)).max(-1)
    one, other = (np.maximum(side.reshape(*side.shape[:-1], 10, -1).sum(-1), 1e-4) for side in (shares, shares_now))
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

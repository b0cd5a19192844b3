"""Recorded lengths as the rule over them sees them: hours' counts by bins, resampled, with a shift put into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ratchet.consumers.rules.backtest import BLOCK, LEAST_HOURS
from ratchet.consumers.rules.bins import Counts
from ratchet.consumers.rules.drift_arrays import DriftLimits, among, length_distances, persistent
from ratchet.consumers.rules.measuring import GROUPS
from ratchet.consumers.rules.quality_arrays import Bools, Floats

FINE = 40
"""Groups that Kolmogorov–Smirnov's distance is read at; the report reads it at every bin."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Hours of lengths: ``calm`` as they were, ``moved`` with the shift in them, (hours, groups); NaN rows are gaps.

    ``starts`` are the first groups of the tenths that PSI is over.
    """

    calm: Floats
    moved: Floats
    starts: NDArray[np.intp]
    hours: int


def regroup(hours: Mapping[datetime, Mapping[int, int]], size: float, min_n: float) -> Recorded:
    """Lay recorded hours out by quantile groups of all of them, and once more with every text longer by ``size``.

    Args:
        hours: counts by bin, as ``report.length_hours`` gives them.
        size: relative; a length keeps its place within a bin only as well as the bin is narrow (1/32 of it).
        min_n: texts below which an hour counts as a gap.

    Raises:
        ValueError: fewer than 72 hours with enough texts.
    """
    known = {hour: bins for hour, bins in hours.items() if sum(bins.values()) >= min_n}
    if len(known) < LEAST_HOURS:
        raise ValueError(
            f"recorded traffic: {len(known)} hours with n >= {min_n:g}; allowed: at least {LEAST_HOURS} of them"
        )
    numbers = sorted({number for bins in known.values() for number in bins})
    total = {number: sum(bins.get(number, 0) for bins in known.values()) for number in numbers}
    whole = Counts.of_bins(total, {})
    fine = whole.grouped(FINE)
    tenths = whole.grouped(GROUPS)
    first = min(known)
    span = round((max(known) - first) / timedelta(hours=1)) + 1
    calm, moved = np.full((span, len(fine.last)), np.nan), np.full((span, len(fine.last)), np.nan)
    was, becomes = (_places(whole.values * scale, fine.last) for scale in (1.0, 1.0 + size))
    for hour, bins in known.items():
        counts = np.array([bins.get(number, 0) for number in numbers], dtype=np.float64)
        at = round((hour - first) / timedelta(hours=1))
        calm[at] = np.bincount(was, counts, len(fine.last))
        moved[at] = np.bincount(becomes, counts, len(fine.last))
    starts = np.unique(_places(tenths.first, fine.last))
    return Recorded(calm, moved, starts.astype(np.intp), len(known))


def _places(values: Floats, last: Floats) -> NDArray[np.intp]:
    """Which group each value falls into; what is longer than all falls into the last."""
    return np.minimum(np.searchsorted(last, values, side="left"), len(last) - 1)


def judge(
    random: np.random.Generator,
    recorded: Recorded,
    rule: DriftLimits,
    *,
    baseline: int,
    count: int,
    warm: int | None,
) -> Bools:
    """Where the rule over lengths is raised in one series of resampled hours beside a baseline of its own.

    Args:
        random: seeded by the caller; days are drawn with replacement, hours in their order.
        recorded: from `regroup`.
        rule: its limits.
        baseline: hours of the baseline.
        count: hours judged.
        warm: from this hour on the shift is in them; None: never.
    """
    span = len(recorded.calm)
    starts = random.integers(0, span, -(-(baseline + count) // BLOCK))
    picked = (starts[:, None] + np.arange(BLOCK)).ravel()[: baseline + count] % span
    before = np.nansum(recorded.calm[picked[:baseline]], 0)
    now = recorded.calm[picked[baseline:]].copy()
    if warm is not None:
        now[warm:] = recorded.moved[picked[baseline + warm :]]
    judged = ~np.isnan(now[:, 0])
    seen = np.where(judged[:, None], now, before)
    effect, p = length_distances(before[None, None], seen[None], recorded.starts)
    asked = judged[None] & (seen.sum(-1)[None] >= rule.min_n)
    return persistent(among(random, p, asked & (effect >= rule.effect), rule), asked, rule.hours)

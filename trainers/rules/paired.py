"""Two models on the same prompts: the difference of their means with an interval that knows they are pairs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import NormalDist, fmean

from scipy import stats


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate less other, over ``n`` prompts that both have a figure for; the interval is two-sided."""

    n: int
    value: float
    low: float
    high: float


def of_shares(candidate: Sequence[bool], other: Sequence[bool], confidence: float = 0.95) -> Difference:
    """The difference of two shares on the same prompts.

    Half a prompt is added to each of the four cells (both, one, the other, neither), so that the interval has a width
    where the two models agree everywhere, which says little at small n.

    Args:
        candidate: whether each prompt came out well.
        other: likewise of the other model, index by index.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: no prompts, unequal lengths, or a confidence out of range.

    Source: A. Agresti and Y. Min (2005), "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 729–740: the Wald interval after adding ½ to each cell.
    """
    z = NormalDist().inv_cdf((1 + _checked(candidate, other, confidence)) / 2)
    n = len(candidate)
    won = sum(1 for a, b in zip(candidate, other, strict=True) if a and not b)
    lost = sum(1 for a, b in zip(candidate, other, strict=True) if b and not a)
    size, better, worse = n + 2, won + 0.5, lost + 0.5
    middle = (better - worse) / size
    radius = z * sqrt((better + worse) - (better - worse) ** 2 / size) / size
    return Difference(n, (won - lost) / n, max(-1.0, middle - radius), min(1.0, middle + radius))


def of_means(candidate: Sequence[float], other: Sequence[float], confidence: float = 0.95) -> Difference:
    """The difference of two means on the same prompts, by Student's t over the differences.

    Args:
        candidate: a figure of each prompt.
        other: likewise of the other model, index by index, in the same unit.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: fewer than two prompts, unequal lengths, a figure that is no finite number, or a confidence out of
            range.
    """
    _checked(candidate, other, confidence)
    if len(candidate) < 2:
        raise ValueError(f"{len(candidate)} prompts; allowed: at least 2 for a mean's interval")
    differences = [a - b for a, b in zip(candidate, other, strict=True)]
    if not all(map(isfinite, differences)):
        raise ValueError("a figure is no finite number; allowed: finite numbers")
    n, mean = len(differences), fmean(differences)
    variance = sum((one - mean) ** 2 for one in differences) / (n - 1)
    radius = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sqrt(variance / n)
    return Difference(n, mean, mean - radius, mean + radius)


def _checked(candidate: Sequence[object], other: Sequence[object], confidence: float) -> float:
    if len(candidate) != len(other) or not candidate:
        raise ValueError(f"{len(candidate)} and {len(other)} prompts; allowed: the same number, at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; allowed: between 0 and 1")
    return confidence

"""How far two windows are apart, and how sure that is: distances and tests over counts, with their formulas.

Counts are of the same bins (in the order of their values), terms or clusters in both windows; ``before`` is the
baseline. Every function wants at least one observation a side and says so; scipy and Evidently are the tests' oracles.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ZERO_SHARE = 0.0001
FEW = 5.0


def _shares(before: Floats, now: Floats) -> tuple[Floats, Floats]:
    total, total_now = float(before.sum()), float(now.sum())
    if total <= 0 or total_now <= 0:
        raise ValueError(f"counts {total:g} before and {total_now:g} now; allowed: at least one observation a side")
    return before / total, now / total_now


def ks(before: Floats, now: Floats) -> float:
    """Kolmogorov–Smirnov's D, 0–1: the largest gap between the two cumulative shares.

    On bins it is the gap at their edges: at most the samples' D, and short of it by no more than the largest share of
    a bin.
    """
    shares, shares_now = _shares(before, now)
    return float(np.abs(np.cumsum(shares) - np.cumsum(shares_now)).max())


@lru_cache(maxsize=64)  # 70 ms each, and a report asks for the same one twice
def ks_p(distance: float, n_before: float, n_now: float) -> float:
    """Two-sided p of D by the asymptotic distribution at n = n₁n₂/(n₁+n₂), as ``scipy.stats.ks_2samp`` takes it."""
    from scipy.stats import kstwo

    n = n_before * n_now / (n_before + n_now)
    return float(min(1.0, max(0.0, kstwo.sf(distance, max(1, np.round(n))))))


def _floored(shares: Floats) -> Floats:
    least = float(shares[shares > 0].min())
    floor = least / 10**6 if least <= _ZERO_SHARE else _ZERO_SHARE
    return np.where(shares == 0, floor, shares)


def psi_terms(before: Floats, now: Floats) -> Floats:
    """Each bin's part of the population stability index: (q − p)·ln(q/p), natural logarithm.

    An empty bin counts as a share of 0.0001 (a millionth of the smallest share where that is no more than 0.0001):
    Evidently's rule, so that figures compare.
    """
    shares, shares_now = _shares(before, now)
    one, other = _floored(shares), _floored(shares_now)
    parts: Floats = (other - one) * np.log(other / one)
    return parts


def psi(before: Floats, now: Floats) -> float:
    """Population stability index ≥ 0 over the given bins: Σ (q − p)·ln(q/p)."""
    return float(psi_terms(before, now).sum())


def js_terms(before: Floats, now: Floats) -> Floats:
    """Each bin's part of the Jensen–Shannon divergence, natural logarithm: ½p·ln(p/m) + ½q·ln(q/m), m = (p+q)/2."""
    shares, shares_now = _shares(before, now)
    middle = (shares + shares_now) / 2
    parts = np.zeros_like(middle)
    for side in (shares, shares_now):
        some = side > 0
        parts[some] += side[some] * np.log(side[some] / middle[some]) / 2
    return parts


def js(before: Floats, now: Floats) -> float:
    """Jensen–Shannon distance, the root of the divergence: 0–0.833 (√ln 2), as ``scipy.spatial.distance`` has it."""
    return math.sqrt(max(0.0, float(js_terms(before, now).sum())))


def wasserstein(values: Floats, before: Floats, now: Floats) -> float:
    """Wasserstein-1 (earth mover's) distance in the values' unit: ∫ |F − G|, bins at their middles."""
    shares, shares_now = _shares(before, now)
    gaps = np.abs(np.cumsum(shares) - np.cumsum(shares_now))
    return float((gaps[:-1] * np.diff(values)).sum())


def deviation(values: Floats, counts: Floats) -> float:
    """Standard deviation (of a population) of counted values."""
    mean = float((values * counts).sum() / counts.sum())
    return math.sqrt(max(0.0, float((counts * (values - mean) ** 2).sum() / counts.sum())))


def chi_square(before: Floats, now: Floats) -> tuple[float, float]:
    """Pearson's χ² of a 2 × k table and its p (no correction); bins empty on both sides do not count.

    One bin left is no difference: χ² 0, p 1.
    """
    from scipy.special import chdtrc

    _shares(before, now)
    table = np.vstack([before, now])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 0.0, 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, float(chdtrc(table.shape[1] - 1, statistic))


def pooled(before: Floats, now: Floats) -> tuple[Floats, Floats]:
    """The same counts with all bins that expect fewer than 5 on a side put into one, which χ² wants."""
    total, total_now = before.sum(), now.sum()
    both = before + now
    few = both * min(total, total_now) / (total + total_now) < FEW
    if not few.any():
        return before, now
    return np.append(before[~few], before[few].sum()), np.append(now[~few], now[few].sum())


def two_proportions(hits: int, n: int, hits_now: int, n_now: int) -> tuple[float, float, str]:
    """Test whether two rates differ, two-sided.

    Returns:
        The statistic, p, and which test it was: ``z`` with the pooled variance; ``fisher`` (exact; the statistic is
        z still) where a cell of the table expects fewer than 5. With one class only, all or none on both sides, there
        is no difference: 0 and 1.
    """
    rate = (hits + hits_now) / (n + n_now)
    if rate in (0.0, 1.0):
        return 0.0, 1.0, "z"
    z = (hits_now / n_now - hits / n) / math.sqrt(rate * (1 - rate) * (1 / n + 1 / n_now))
    if min(n, n_now) * min(rate, 1 - rate) < FEW:
        from scipy.stats import fisher_exact

        return z, float(fisher_exact([[hits, n - hits], [hits_now, n_now - hits_now]])[1]), "fisher"
    return z, math.erfc(abs(z) / math.sqrt(2)), "z"


def welch(mean: float, variance: float, n: float, mean_now: float, variance_now: float, n_now: float) -> float:
    """Two-sided p of Welch's t test of two means; variances are of one observation (population's), n may be effective.

    Without any variance two equal means have p 1 and two different ones p 0.
    """
    from scipy.special import stdtr

    one, other = variance / (n - 1), variance_now / (n_now - 1)
    if one + other <= 0:
        return 1.0 if mean == mean_now else 0.0
    t = (mean_now - mean) / math.sqrt(one + other)
    freedom = (one + other) ** 2 / (one**2 / (n - 1) + other**2 / (n_now - 1))
    return float(2 * stdtr(freedom, -abs(t)))

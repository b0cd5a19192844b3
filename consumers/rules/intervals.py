"""Confidence intervals that consumers, trainers and services share."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist


def wilson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate: right at small n and near 0 and 1, where k/n ± 1.96·SE is not.

    Args:
        k: successes, 0 ≤ k ≤ n; a fraction where observations carry weights.
        n: trials (Kish's effective number of them); 0 gives (0, 1), which is what no data says.
        confidence: two-sided, between 0 and 1.

    Returns:
        Lower and upper bound of the rate.

    Raises:
        ValueError: k or confidence outside its range.

    Source: E. B. Wilson (1927); same figures as statsmodels' proportion_confint(method="wilson").
    """
    if not 0 <= k <= n:
        raise ValueError(f"k={k} of n={n}; allowed: 0 <= k <= n")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; allowed: between 0 and 1")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = k / n
    middle = rate + z * z / (2 * n)
    radius = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # the rate is inside, at k = 0 and k = n on the bound: rounding must not move a bound past it
    low = 0.0 if k == 0 else min(max(0.0, (middle - radius) / scale), rate)
    high = 1.0 if k == n else max(min(1.0, (middle + radius) / scale), rate)
    return low, high


def events_per(k: int, exposure: float, dispersion: float = 1.0, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a rate of events, such as false alarms a year.

    Args:
        k: events seen, ≥ 0.
        exposure: time watched, > 0, in the unit that the rate is per.
        dispersion: variance over mean of the count, ≥ 1 where events come in clusters (quasi-Poisson): the count then
            says as much as k/dispersion independent events do.
        confidence: two-sided, between 0 and 1.

    Returns:
        Lower and upper bound, per unit of exposure; at k = 0 the upper bound is about 3.7/exposure, never 0.

    Raises:
        ValueError: an argument outside its range.

    Source: Byar's approximation of the exact Poisson limits (N. E. Breslow and N. E. Day 1987, §2.3), within 1% of
    them from 1 event on.
    """
    if k < 0 or exposure <= 0 or dispersion < 1:
        raise ValueError(f"k={k}, exposure={exposure}, dispersion={dispersion}; allowed: >= 0, > 0, >= 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; allowed: between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    count = k / dispersion
    low = count * max(0.0, 1 - 1 / (9 * count) - z / (3 * sqrt(count))) ** 3 if k else 0.0
    high = (count + 1) * (1 - 1 / (9 * (count + 1)) + z / (3 * sqrt(count + 1))) ** 3
    return low * dispersion / exposure, high * dispersion / exposure

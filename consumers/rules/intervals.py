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
    # at k = 0 and k = n the bound is exact; rounding must not move it past the rate
    low = 0.0 if k == 0 else max(0.0, (middle - radius) / scale)
    high = 1.0 if k == n else min(1.0, (middle + radius) / scale)
    return low, high

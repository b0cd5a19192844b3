"""Bounds that hold at every look: for passing up to a planned number of observations, for failing for ever.

Passing ends at ``max_n``, so all of alpha can be spent by then: the O'Brien–Fleming-type boundary is a constant
bound on the score process (a Brownian motion), crossed with probability 2·(1−Φ(b/√T)) by time T (reflection
principle; Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials"). Looked at without a break it
needs no memory of earlier looks, and is a little strict where looks are few. Failing must hold however long a stage
lasts: a normal mixture (Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences"), and bets for the 95th percentile (Waudby-Smith and Ramdas 2024).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

OVERSHOOT = 1.05
"""A look may come this much late: the boundary is planned for ``max_n`` times this."""
TUNED = 8
"""The bound for failing is tightest at an eighth of ``max_n``: harm should be proved long before safety is."""
QUANTILE = 0.95
EXCEEDANCE = 1 - QUANTILE

# Bets against "the candidate is too slow" (at most 1/0.95) and against "it is fast enough" (at
# most 1/0.05). A mixture of a few is within a small factor of the best single bet.
_FASTER_BETS = tuple(share / QUANTILE for share in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9))
_SLOWER_BETS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@lru_cache
def _boundary(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha / 2)


def pass_radius(information: float, planned: float, alpha: float) -> float:
    """Half-width of the one-sided bound for passing, valid at every look up to the planned information.

    Args:
        information: V = 1/SE² so far, at most `OVERSHOOT` times ``planned``.
        planned: V at the last look.
        alpha: the chance that a candidate exactly at its margin ever passes.
    """
    return _boundary(alpha) * math.sqrt(planned * OVERSHOOT) / information


def radius(information: float, planned: float, alpha: float) -> float:
    """Half-width of the one-sided confidence sequence for a difference of means, valid at every look for ever.

    Args:
        information: V = 1/SE² so far.
        planned: V at the number of observations where the bound shall be tightest.
        alpha: the chance that the bound is ever wrong.
    """
    log_inverse = math.log(1 / alpha)
    rho = planned / (2 * log_inverse + math.log(1 + 2 * log_inverse))
    spread = math.sqrt((information + rho) / rho)
    return math.sqrt(2 * (information + rho) * math.log(1 + spread / (2 * alpha))) / information


def log_e_faster(n: float, exceeded: float) -> float:
    """Log of the e-value against "more than 5% exceed", from counts (mixture of bets)."""
    return _log_mean(
        [(n - exceeded) * math.log1p(b * EXCEEDANCE) + exceeded * math.log1p(-b * QUANTILE) for b in _FASTER_BETS]
    )


def log_e_slower(n: float, exceeded: float) -> float:
    """Log of the e-value against "at most 5% exceed", from counts (mixture of bets)."""
    return _log_mean(
        [exceeded * math.log1p(b * QUANTILE) + (n - exceeded) * math.log1p(-b * EXCEEDANCE) for b in _SLOWER_BETS]
    )


def _log_mean(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / len(logs))

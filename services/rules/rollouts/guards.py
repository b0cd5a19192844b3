"""What ends or holds a stage without a gate: a burst of failures, and a split that is not the planned one. Pure."""

from __future__ import annotations

import math
from math import lgamma

from ratchet.schemas.rollout_policy import BurstPolicy
from ratchet.services.rules.rollouts.evidence import Burst, Split

_PRIOR_KEYS = 200.0
"""How many keys the prior of the split's test is worth: small for finding gross mismatches soon."""


def burst_reason(seen: Burst, policy: BurstPolicy) -> str | None:
    """Say why the candidate's failures of the last seconds end its rollout; None where they do not.

    Where the stable arm fails as often the model servers are ill, not the candidate: Fisher's exact test, one-sided.
    """
    n, failed = seen.n_candidate, seen.failed_candidate
    if n < policy.min_n or failed < policy.share * n:
        return None
    against = ""
    if seen.n_stable:
        p = fisher(seen)
        if p > policy.alpha:
            return None
        against = f", of stable's {seen.failed_stable} of {seen.n_stable} (Fisher's exact p {p:.2g})"
    return f"{failed} of the candidate's {n} calls failed within {policy.window_s:g} s{against}"


def fisher(seen: Burst) -> float:
    """The p-value of "the candidate fails no more often than stable", given how many failed in all (hypergeometric).

    Summed here, and held to scipy's by a test: the first import of scipy.stats takes 0.6 to 0.9 s, and would come
    between a burst and its rollback.
    """
    total, failures = seen.n_stable + seen.n_candidate, seen.failed_stable + seen.failed_candidate
    most = min(failures, seen.n_candidate)

    def log_chance(k: int) -> float:
        return (_log_choose(failures, k) + _log_choose(total - failures, seen.n_candidate - k)) - _log_choose(
            total, seen.n_candidate
        )

    least = max(seen.failed_candidate, seen.n_candidate - (total - failures))
    return min(sum(math.exp(log_chance(k)) for k in range(least, most + 1)), 1.0)


def mismatch_reason(split: Split, alpha: float) -> str | None:
    """Say why the users were not split as the stage says; None where that is not shown.

    Valid at every look: the beta-binomial mixture against the planned share (Lindon and Malek 2022, "Anytime-valid
    inference for multinomial count data"), a martingale under it, exceeds 1/alpha with at most the chance alpha.
    """
    n, k, share = split.stable + split.candidate, split.candidate, split.weight_bp / 10_000
    if not n or not 0 < share < 1:
        return None
    if log_e_mismatch(n, k, share) < math.log(1 / alpha):
        return None
    return (
        f"sample-ratio mismatch: {k} of {n} users ({k / n:.2%}) got the candidate, planned {share:.2%}:"
        f" the arms cannot be compared"
    )


def log_e_mismatch(n: int, k: int, share: float) -> float:
    """Log of the e-value against "each of n keys is the candidate's with this probability", k of which were."""
    a, b = _PRIOR_KEYS * share, _PRIOR_KEYS * (1 - share)
    mixture = _log_beta(a + k, b + n - k) - _log_beta(a, b)
    return mixture - k * math.log(share) - (n - k) * math.log1p(-share)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) if 0 <= k <= n else -math.inf

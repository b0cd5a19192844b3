"""Sums of samples, what cannot be one, and what is too little for any verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ratchet.schemas.rollout_events import Arm
from ratchet.schemas.rollout_policy import Gate
from ratchet.services.rules.rollouts.evidence import Sample


def pooled(samples: Iterable[Sample | None]) -> Sample | None:
    """One arm over several stages, for people to read: the tests compare within stages."""
    known = [sample for sample in samples if sample is not None]
    if not known:
        return None
    return Sample(
        sum(one.n for one in known),
        sum(one.total for one in known),
        sum(one.squares for one in known),
        sum(one.abstained for one in known),
    )


def impossible(sample: Sample, bounded: bool, signed: bool = False) -> str | None:
    """Say why these figures cannot be a sample's; None where they can.

    Args:
        sample: the figures.
        bounded: every value is between 0 and 1 (with ``signed`` between −1 and 1).
        signed: values may be negative.
    """
    variance = sample.mean_variance or 0.0
    figures = (sample.n, sample.total, sample.squares, sample.abstained, variance)
    said = f"n={sample.n:g}, sum={sample.total:g}, sum of squares={sample.squares:g}"
    if not all(math.isfinite(value) for value in figures):
        return f"not finite: {said}"
    slack = 1e-6 * max(sample.n, 1.0)
    if sample.n < 0 or sample.squares < -slack or sample.abstained < 0 or variance < 0:
        return f"impossible: {said}"
    if sample.total**2 > sample.n * sample.squares * (1 + 1e-6) + slack:
        return f"impossible: {said}"
    if not signed and sample.total < -slack:
        return f"impossible: {said}"
    if bounded and not signed and not (sample.squares <= sample.total + slack <= sample.n + 2 * slack):
        return f"impossible: {said}"
    if bounded and sample.squares > sample.n + slack:
        return f"impossible: {said}"
    return None


def too_few(gate: Gate, stable: Arm, candidate: Arm, users: int | None) -> str | None:
    """Say what the arms lack for any verdict: observations, or users; None where they have enough."""
    for name, arm in (("stable", stable), ("candidate", candidate)):
        if arm.n == 0:
            return f"no data of the {name} arm"
    short = min(stable.n, candidate.n)
    if short < gate.min_n:
        return f"waiting for n: {short} of {gate.min_n} in the smaller arm"
    if users is not None and users < gate.min_users:
        return f"waiting for users: {users} of {gate.min_users} in the smaller arm"
    return None


def unit_variance(sample: Sample, bounded: bool, signed: bool = False) -> float:
    """Variance of one observation, never 0: smoothed for shares, plain for dollars and characters."""
    if bounded and not signed:
        return sample.variance
    plain = sample.squares / sample.n - sample.mean**2
    if bounded:
        return max((sample.squares + 0.5) / (sample.n + 1) - (sample.total / (sample.n + 1)) ** 2, plain)
    return max(plain * sample.n / max(sample.n - 1, 1), 1e-12 * max(sample.mean**2, 1e-12))

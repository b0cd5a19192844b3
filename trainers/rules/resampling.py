"""Weights of training pairs, applied by how often a pair is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite


def systematic(weights: Sequence[float], start: float = 0.5) -> list[int]:
    """Draw as many indices as there are weights, each in proportion to its weight.

    Systematic resampling: one comb of equally spaced points laid over the cumulated weights,
    so that an index comes ``floor`` or ``ceil`` of its expected number of times and equal
    weights give every index exactly once. Source: J. Carpenter, P. Clifford, P. Fearnhead,
    "Improved particle filter for nonlinear problems", IEE Proc. 146 (1999).

    Args:
        weights: not negative, at least one above 0.
        start: where in the first gap the comb begins, 0 < start <= 1.

    Returns:
        Indices in ascending order, with repetitions.

    Raises:
        ValueError: a weight is negative or not finite, all are 0, or the comb begins elsewhere.
    """
    if not 0 < start <= 1:
        raise ValueError(f"start={start}; allowed: above 0, up to 1")
    if any(weight < 0 or not isfinite(weight) for weight in weights):
        raise ValueError("weights must be finite and not negative")
    total = sum(weights)
    if total <= 0:
        raise ValueError("at least one weight must be above 0")
    scale = len(weights) / total
    drawn: list[int] = []
    cumulated = 0.0
    for index, weight in enumerate(weights):
        # Points at start, start + 1, ...: those below the cumulated weight belong to this index.
        before = floor(cumulated + 1 - start + 1e-9)
        cumulated += weight * scale
        drawn.extend([index] * (floor(cumulated + 1 - start + 1e-9) - before))
    return drawn

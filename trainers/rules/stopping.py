"""Early stopping with patience: Goodfellow, Bengio and Courville, "Deep Learning" (2016), algorithm 7.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """The index of the best value, and how many came after it."""

    best: int
    since: int


def standing(values: Sequence[float], *, lower_is_better: bool, min_delta: float) -> Standing | None:
    """Where a row of evaluations stands; None without any.

    A value is better than the best so far where it is so by more than ``min_delta``; the first is the best so far of
    one, so a tie stays with the earlier.

    Args:
        values: one an evaluation, in their order.
        lower_is_better: of a loss; else higher is.
        min_delta: at least 0.
    """
    if not values:
        return None
    sign = -1.0 if lower_is_better else 1.0
    best = 0
    for index, value in enumerate(values):
        if sign * value > sign * values[best] + min_delta:
            best = index
    return Standing(best, len(values) - 1 - best)


def evaluation_steps(steps: int, evaluations: int) -> frozenset[int]:
    """The steps after which held-out rows are measured: evenly over a run, the last one among them.

    Args:
        steps: of the whole run, at least 1.
        evaluations: how many; 0 for none, and never more than one a step.
    """
    return frozenset(-(-steps * number // evaluations) for number in range(1, evaluations + 1))

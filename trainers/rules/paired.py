"""Two models on the same prompts: differences whose intervals know that they are pairs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.float64]
    """A row a prompt, one or several numbers of each."""

ROUNDS = 2_000
"""Resamples of a bootstrap: at 5% the bound then moves by about a tenth of the interval's half-width."""
_HALVINGS = 60


def score(won: float, lost: float, n: int, difference: float) -> float:
    """Tango's score statistic against "the rates differ by exactly ``difference``"; McNemar's z where that is 0.

    Args:
        won: prompts that only the candidate got right.
        lost: prompts that only the other got right.
        n: all prompts, at least 1.
        difference: candidate's rate less the other's, between -1 and 1.

    Returns:
        Standard normal under that hypothesis: large where the candidate is better than it says.

    Source: T. Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 891-908; Q. McNemar (1947), Psychometrika 12, 153-157.
    """
    a, b = 2 * n, -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + difference * (1 - difference))
    gap = won - lost - n * difference
    if variance <= 0:
        return 0.0 if gap == 0 else float("inf") if gap > 0 else float("-inf")
    return gap / sqrt(variance)


def rates(won: int, lost: int, n: int, z: float) -> tuple[float, float]:
    """Tango's interval of the difference of two rates on the same prompts.

    It has a width where the two agree on every prompt, which says little at small n: for n prompts it then reaches to
    z²/(n + z²) either way, as Wilson's does.

    Args:
        won: prompts that only the candidate got right.
        lost: prompts that only the other got right.
        n: all prompts, at least 1.
        z: quantile of the standard normal, above 0; 1.645 leaves 5% on each side.

    Raises:
        ValueError: counts that cannot be.
    """
    if n < 1 or won < 0 or lost < 0 or won + lost > n:
        raise ValueError(f"won={won}, lost={lost} of n={n}; allowed: counts from 0 that add up to at most n, n from 1")
    middle = (won - lost) / n

    def edge(outside: float, sign: float) -> float:
        inside, beyond = middle, outside
        for _ in range(_HALVINGS):
            tried = (inside + beyond) / 2
            inside, beyond = (tried, beyond) if sign * score(won, lost, n, tried) < z else (inside, tried)
        return (inside + beyond) / 2

    return edge(-1.0, 1.0), edge(1.0, -1.0)


def resampled(
    candidate: Rows, other: Rows | None, statistic: Callable[[Rows], float], seed: int, rounds: int = ROUNDS
) -> list[tuple[float, float]]:
    """The figures of both models on resamples of the prompts, the same prompts for both in each.

    Args:
        candidate: of the candidate, a row a prompt.
        other: of the other model, prompt by prompt; None: there is none, and its figure is 0.
        statistic: a figure of rows.
        seed: of the draws.
        rounds: resamples.

    Raises:
        ValueError: no rows, or unequal numbers of them.

    Source: B. Efron and R. Tibshirani (1993), "An Introduction to the Bootstrap", ch. 13; for corpus scores of text
    P. Koehn (2004), "Statistical significance tests for machine translation evaluation", EMNLP 388-395.
    """
    import numpy as np

    n = len(candidate)
    if n == 0 or (other is not None and len(other) != n):
        raise ValueError(f"{n} and {0 if other is None else len(other)} rows; allowed: the same number, at least 1")
    draws = np.random.default_rng(seed).integers(0, n, size=(rounds, n))
    return [(statistic(candidate[some]), 0.0 if other is None else statistic(other[some])) for some in draws]

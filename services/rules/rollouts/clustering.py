"""The variance of a mean over users, from sums that a database can give: a ratio's, linearized. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.services.rules.rollouts.evidence import Sample


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over an arm's values x with weights w (without weights 1).

    Of each user y = Σwx and n = Σw; ``yy``, ``yn`` and ``nn`` are Σy², Σyn and Σn² over the ``users`` who have a value.

    Args:
        rows: values.
        weights: Σw.
        total: Σwx.
        squares: Σwx².
        abstained: asked about, and without a value.
    """

    users: int
    rows: int
    weights: float
    total: float
    squares: float
    yy: float
    yn: float
    nn: float
    abstained: int = 0


def sample(sums: Sums) -> Sample:
    """The arm's figures, with the variance of its mean by users.

    A user's y is a part of the numerator and n of the denominator of the mean m = Σy/Σn, so to first order
    Var(m) = Σ(y − m·n)²/(Σn)²·C/(C−1) over C users (Cochran 1977, Sampling Techniques, 6.4). Of one user it is not
    known. Rows with weights become as many equal ones with the weighted mean; what the weights cost is in the
    variance, too.
    """
    if not sums.rows:
        return Sample(0, 0, 0, sums.abstained, 0)
    scale = sums.rows / sums.weights
    mean = sums.total / sums.weights
    variance = None
    if sums.users > 1:
        # above 0 by definition, and a little below it by rounding where every user is the same
        around = max(sums.yy - 2 * mean * sums.yn + mean * mean * sums.nn, 0.0)
        variance = around / sums.weights**2 * sums.users / (sums.users - 1)
    return Sample(
        sums.rows, sums.total * scale, sums.squares * scale, sums.abstained, users=sums.users, mean_variance=variance
    )

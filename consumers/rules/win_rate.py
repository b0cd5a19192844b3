"""Win rates over comparisons, plain and controlled for length; intervals beside both.

The plain win rate counts a win as 1, a tie as ½ and a loss as 0. Judges like longer answers, so a
candidate that only writes more wins more. The length-controlled rate answers "what would it be if both
answers had the same length?" after AlpacaEval 2 (Dubois, Galambosi, Liang and Hashimoto 2024,
"Length-Controlled AlpacaEval", arXiv:2404.04475): fit

    P(win) = σ(θ + φ·tanh(Δ/s))

with Δ the candidate's length less the other's and s the root mean square of Δ, then report σ(θ), the
prediction at Δ = 0. Of their terms the difficulty of each instruction is left out: it needs many models
on one set of prompts, and production has two adapters on prompts that come once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log1p, sqrt, tanh
from statistics import NormalDist

from ratchet.consumers.rules.intervals import wilson

_STEPS = 100
_CLOSE = 1e-10


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison, or ``count`` alike.

    ``score`` is the candidate's 1, ½ or 0; ``difference`` its length less the other's, in characters;
    ``weight`` the inverse of the inclusion probability.
    """

    score: float
    difference: float
    weight: float = 1.0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """A win rate 0–1 with its interval; ``n`` is Kish's effective number of comparisons. None: there are none."""

    n: float
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Controlled(Rate):
    """A length-controlled rate.

    ``slope`` is φ: above 0 the judge preferred longer answers here. ``extrapolated``: every candidate's answer
    was longer (or every one shorter), so equal length is outside of what was seen.
    """

    slope: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Stratum:
    """Comparisons in which the candidate's answer was ``longer``, ``shorter`` or the ``same`` length."""

    candidate: str
    wins: int
    ties: int
    losses: int
    win_rate: Rate


def win_rate(found: Sequence[Comparison], confidence: float = 0.95) -> Rate:
    """The weighted mean score with Wilson's interval at the effective number of comparisons.

    A score in [0, 1] with mean p varies at most p(1−p), so the interval is right without ties and wide with them.
    """
    total = sum(one.weight * one.count for one in found)
    if not total:
        return Rate(0.0, None, *wilson(0, 0, confidence))
    n = _effective(found)
    rate = min(1.0, sum(one.weight * one.count * one.score for one in found) / total)
    low, high = wilson(min(n, rate * n), n, confidence)
    return Rate(n, rate, min(low, rate), max(high, rate))


def _effective(found: Sequence[Comparison]) -> float:
    """(Σw)² / Σw², Kish 1965."""
    squares = sum(one.weight**2 * one.count for one in found)
    return float(sum(one.weight * one.count for one in found) ** 2 / squares)


def length_controlled(found: Sequence[Comparison], confidence: float = 0.95) -> Controlled | None:
    """The win rate at equal length, with a robust (sandwich, HC1) interval on θ's scale; None without data.

    Two half observations of a tie, at tanh(Δ/s) = ±1, keep the fit finite where one side always wins; they
    draw the rate towards ½ by one comparison's weight and leave it antisymmetric: exchanging the sides gives
    1 − rate. Ties count as half a win and half a loss (the likelihood of fractional outcomes: Papke and
    Wooldridge 1996).

    Args:
        found: comparisons; weights matter relative to each other.
        confidence: two-sided, between 0 and 1.
    """
    total = sum(one.weight * one.count for one in found)
    if not total:
        return None
    size = sum(one.count for one in found)
    n = _effective(found)
    # weights with mean 1: the two half observations then weigh one comparison
    unit = size / total
    scale = sqrt(sum(one.weight * one.count * one.difference**2 for one in found) / total)
    rows = [(tanh(one.difference / scale) if scale else 0.0, one.score, one.weight * unit, one.count) for one in found]
    prior = [(-1.0, 0.5, 0.5, 1), (1.0, 0.5, 0.5, 1)]
    theta, slope = _fit([*rows, *prior])
    spread = _theta_error([*rows, *prior], rows, theta, slope) * sqrt(size / (size - 2) if size > 2 else 3.0)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * spread
    apart = all(one.difference > 0 for one in found) or all(one.difference < 0 for one in found)
    return Controlled(n, _sigmoid(theta), _sigmoid(theta - reach), _sigmoid(theta + reach), slope, apart)


_Rows = Sequence[tuple[float, float, float, int]]
"""tanh(Δ/s), score, weight and count of each."""


def _fit(rows: _Rows) -> tuple[float, float]:
    """θ and φ of the greatest likelihood, by Newton steps that are halved while they lose."""
    theta = slope = 0.0
    best = _loss(rows, theta, slope)
    for _ in range(_STEPS):
        g0 = g1 = h00 = h01 = h11 = 0.0
        for x, y, weight, count in rows:
            p = _sigmoid(theta + slope * x)
            error, curve = weight * count * (y - p), weight * count * p * (1 - p)
            g0, g1 = g0 + error, g1 + error * x
            h00, h01, h11 = h00 + curve, h01 + curve * x, h11 + curve * x * x
        determinant = h00 * h11 - h01 * h01
        step0, step1 = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
        size = 1.0
        while (loss := _loss(rows, theta + size * step0, slope + size * step1)) > best and size > _CLOSE:
            size /= 2
        theta, slope, best = theta + size * step0, slope + size * step1, min(best, loss)
        if abs(step0) + abs(step1) < _CLOSE:
            break
    return theta, slope


def _theta_error(rows: _Rows, seen: _Rows, theta: float, slope: float) -> float:
    """Standard error of θ: H⁻¹·(Σ w²·e²·xxᵀ)·H⁻¹ with the errors of what was seen (Huber 1967, White 1980)."""
    h00 = h01 = h11 = m00 = m01 = m11 = 0.0
    for x, _, weight, count in rows:
        p = _sigmoid(theta + slope * x)
        curve = weight * count * p * (1 - p)
        h00, h01, h11 = h00 + curve, h01 + curve * x, h11 + curve * x * x
    for x, y, weight, count in seen:
        # a tie is no sure half: an error of at least a Bernoulli variable's is assumed
        p = _sigmoid(theta + slope * x)
        square = count * weight**2 * max((y - p) ** 2, p * (1 - p))
        m00, m01, m11 = m00 + square, m01 + square * x, m11 + square * x * x
    determinant = h00 * h11 - h01 * h01
    a, b = h11 / determinant, -h01 / determinant
    return sqrt(a * a * m00 + 2 * a * b * m01 + b * b * m11)


def _loss(rows: _Rows, theta: float, slope: float) -> float:
    """Negative log-likelihood."""
    total = 0.0
    for x, y, weight, count in rows:
        z = theta + slope * x
        # log(1 + e^z) without overflow
        total += weight * count * (max(z, 0.0) + log1p(exp(-abs(z))) - y * z)
    return total


def _sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z)) if z >= 0 else exp(z) / (1 + exp(z))


def by_length(found: Iterable[Comparison], confidence: float = 0.95) -> list[Stratum]:
    """Win rates by whose answer was longer; a judge that likes length shows here without a model."""
    sides: dict[str, list[Comparison]] = {"longer": [], "same": [], "shorter": []}
    for one in found:
        sides["longer" if one.difference > 0 else "shorter" if one.difference < 0 else "same"].append(one)
    return [Stratum(side, *tally(some), win_rate(some, confidence)) for side, some in sides.items()]


def tally(found: Iterable[Comparison]) -> tuple[int, int, int]:
    """Wins, ties and losses, each comparison counted once."""
    wins = ties = losses = 0
    for one in found:
        wins += one.count if one.score > 0.5 else 0
        ties += one.count if one.score == 0.5 else 0
        losses += one.count if one.score < 0.5 else 0
    return wins, ties, losses

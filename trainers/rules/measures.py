"""Figures of an evaluation with their intervals: of one model, and of two on the same prompts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from ratchet.consumers.rules.intervals import wilson
from ratchet.trainers.rules import paired

if TYPE_CHECKING:
    from ratchet.trainers.rules.paired import Rows

Kind = Literal["rate", "mean", "median", "p95", "ratio", "bleu"]
Value = tuple[float, ...]
KINDS: dict[str, Kind] = {
    "rouge_l": "mean",
    "bleu": "bleu",
    "latency_p50": "median",
    "latency_p95": "p95",
    "throughput": "ratio",
    "reward_margin": "mean",
}
"""What each metric is of its prompts' numbers; all others are rates."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One metric of one model: the numbers of each prompt that has a verdict, and ``missing`` prompts that have none.

    Of a rate, a prompt has 0 or 1 (½: a tie); of a ratio, numerator and denominator; of BLEU, the matched and all
    n-grams of the four orders and both lengths; else its figure. ``error`` says why nothing could be measured.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over ``n`` prompts with its interval; None without a prompt."""

    n: int
    value: float | None
    low: float | None
    high: float | None
    missing: int = 0

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def kind_of(metric: str, *observed: Observed | None) -> Kind:
    """What a metric is; a regression task is a rate where each of its examples has 0 or 1."""
    if metric in KINDS:
        return KINDS[metric]
    fraction = any(value[0] not in (0.0, 0.5, 1.0) for one in observed if one for value in one.values.values())
    return "mean" if fraction else "rate"


def figure(kind: Kind, observed: Observed, seed: int, confidence: float = 0.95) -> Figure:
    """A model's own figure: Wilson's interval of a rate, the bootstrap's percentiles of anything else.

    Args:
        kind: of the metric.
        observed: its prompts.
        seed: of the bootstrap.
        confidence: two-sided, between 0 and 1.

    Raises:
        ValueError: a number that is not finite, or not between 0 and 1 where the metric is a rate.
    """
    names = sorted(observed.values)
    n, missing = len(names), len(observed.missing)
    if n == 0:
        return Figure(0, None, None, None, missing)
    rows = rows_of(observed, names)
    if kind == "rate":
        total = float(rows.sum())
        low, high = wilson(total, n, confidence)
        return Figure(n, total / n, low, high, missing)
    found = sorted(one for one, _ in paired.resampled(rows, None, lambda some: statistic(kind, some), seed))
    low, high = quantile(found, (1 - confidence) / 2), quantile(found, (1 + confidence) / 2)
    return Figure(n, statistic(kind, rows), low, high, missing)


def difference(kind: Kind, candidate: Observed, other: Observed, seed: int, confidence: float = 0.95) -> Figure:
    """Candidate less other on the prompts that both have: Tango's interval of rates, else the paired bootstrap's.

    Raises:
        ValueError: as `figure`.
    """
    names = sorted(candidate.values.keys() & other.values.keys())
    if not names:
        return Figure(0, None, None, None)
    ours, theirs = rows_of(candidate, names), rows_of(other, names)
    if kind == "rate":
        won, lost = contests(candidate, other, names)
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        return Figure(len(names), (won - lost) / len(names), *paired.rates(won, lost, len(names), z))
    found = paired.resampled(ours, theirs, lambda some: statistic(kind, some), seed)
    gaps = sorted(one - two for one, two in found)
    low, high = quantile(gaps, (1 - confidence) / 2), quantile(gaps, (1 + confidence) / 2)
    return Figure(len(names), statistic(kind, ours) - statistic(kind, theirs), low, high)


def contests(candidate: Observed, other: Observed, names: Sequence[str]) -> tuple[int, int]:
    """Prompts that only the candidate got right, and prompts that only the other did."""
    pairs = [(candidate.values[name][0], other.values[name][0]) for name in names]
    return sum(ours > theirs for ours, theirs in pairs), sum(ours < theirs for ours, theirs in pairs)


def rows_of(observed: Observed, names: Sequence[str]) -> Rows:
    """The prompts' numbers as rows, in this order; raises ValueError where one is not finite."""
    import numpy as np

    for name in names:
        if not all(map(isfinite, observed.values[name])):
            raise ValueError(f"prompt {name}: {observed.values[name]}; allowed: finite numbers")
    return np.array([observed.values[name] for name in names], dtype=np.float64)


def statistic(kind: Kind, rows: Rows) -> float:
    """The figure that rows come to."""
    import numpy as np

    if kind == "ratio":
        above, below = rows.sum(axis=0)
        return float(above / below) if below else 0.0
    if kind == "bleu":
        return _bleu(rows.sum(axis=0))
    if kind in ("median", "p95"):
        return between(np.sort(rows[:, 0]), 0.5 if kind == "median" else 0.95)
    return float(rows[:, 0].mean())


def _bleu(sums: Rows) -> float:
    """Corpus BLEU, 0 to 100, from the sums over its sentences, smoothed as sacrebleu smooths by default."""
    from sacrebleu.metrics.bleu import BLEU

    counts = [round(one) for one in sums]
    made = BLEU.compute_bleu(counts[:4], counts[4:8], counts[8], counts[9], smooth_method="exp")
    return float(made.score)


def between(ordered: Rows, share: float) -> float:
    """A quantile of sorted numbers, interpolated as numpy does by default, which takes ten times as long."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of sorted values lie."""
    return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]

"""Gates before the shadow stage: does the candidate pass on frozen prompts? Four outcomes. Pure.

A gate passes where a one-sided bound at its ``alpha`` lies on the right side, fails where the opposite bound lies on
the wrong one, and is inconclusive in between, with too few prompts, or where nothing was measured; it is an error where
measuring failed or the figures make no sense. All critical gates must pass (intersection-union, so each keeps its whole
alpha): only a pass lets an adapter on. What has no verdict counts against the candidate before it may pass (a worst
case, after C. Manski 1990). How often each kind of gate passes a candidate exactly at its bound: docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.evaluation_policy import EvaluationGate
from ratchet.schemas.rollout_events import Verdict
from ratchet.trainers.rules import paired
from ratchet.trainers.rules.measures import (
    Figure,
    Observed,
    contests,
    figure,
    kind_of,
    quantile,
    rows_of,
    statistic,
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A gate's outcome with what it saw.

    ``low`` and ``high`` bound, each at the gate's alpha, the candidate's figure less the other's (of a margin) or the
    candidate's figure (of a floor or ceiling); ``bound`` is the margin, floor or ceiling in the metric's unit.
    """

    metric: str
    verdict: Verdict
    reason: str
    critical: bool
    n: int = 0
    candidate: float | None = None
    stable: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class _Bounds(NamedTuple):
    """One-sided bounds of what a gate asks about, ``pessimist`` the lower one with everything missing gone wrong."""

    low: float
    high: float
    pessimist: float


def answer(gate: EvaluationGate, candidate: Observed | None, stable: Observed | None, seed: int) -> Answered:
    """Answer one gate.

    Args:
        gate: the question.
        candidate: its metric of the candidate; None: it was not measured.
        stable: of what it is compared with; only a margin looks at it.
        seed: of the bootstrap.
    """
    compared = gate.margin is not None
    for name, side in (("candidate", candidate), ("stable", stable if compared else None)):
        if side is not None and side.error:
            return _said(gate, "error", f"measuring the {name} failed: {side.error}")
        if (side is None or not (side.values or side.missing)) and (compared or name == "candidate"):
            return _said(gate, "inconclusive", f"not measured of the {name}")
    assert candidate is not None, "returned above"
    try:
        return _against(gate, candidate, stable, seed) if compared and stable else _alone(gate, candidate, seed)
    except ValueError as error:
        return _said(gate, "error", str(error))


def advised(answered: Answered, advisory: str) -> Answered:
    """What a judge that is only advisory saw: shown, and deciding nothing; an error stays one."""
    if answered.verdict == "error":
        return answered
    return replace(answered, verdict="inconclusive", reason=f"{answered.reason}; its judge is advisory: {advisory}")


def rejection(answers: Sequence[Answered], *, dry_run: bool = False) -> str | None:
    """Why an adapter must not be rolled out: every critical gate without a pass; None where all have one."""
    held = [f"{one.metric}: {one.verdict}: {one.reason}" for one in answers if one.critical and one.verdict != "pass"]
    return "; ".join(held) if held and not dry_run else None


def _alone(gate: EvaluationGate, candidate: Observed, seed: int) -> Answered:
    kind, n = kind_of(gate.metric, candidate), len(candidate.values)
    bound = gate.ceiling if gate.floor is None else gate.floor
    assert bound is not None, "a gate has a margin, a floor or a ceiling"
    own = figure(kind, candidate, seed, 1 - 2 * gate.alpha)
    seen = _said(gate, "inconclusive", "", own, bound=bound)
    if own.value is None or own.low is None or own.high is None or n < gate.min_n:
        return replace(seen, reason=_few(gate, n, len(candidate.missing)))
    pessimist = gate.ceiling is not None
    if kind == "rate":
        k, missing = sum(value[0] for value in candidate.values.values()), len(candidate.missing)
        worst = wilson(k + (missing if pessimist else 0), n + missing, 1 - 2 * gate.alpha)[1 if pessimist else 0]
    elif candidate.missing:
        return replace(seen, reason=_few(gate, n, len(candidate.missing)))
    else:
        worst = own.high if pessimist else own.low
    sign, word = (-1.0, "ceiling") if pessimist else (1.0, "floor")
    good, bad = (own.high, own.low) if pessimist else (own.low, own.high)
    inner = _Bounds(sign * (good - bound), sign * (bad - bound), sign * (worst - bound))
    told = f"{own.value:.4g} of n = {n}, {_interval(gate, own.low, own.high)}, {word} {bound:g}"
    return _decided(seen, inner, told, len(candidate.missing))


def _against(gate: EvaluationGate, candidate: Observed, stable: Observed, seed: int) -> Answered:
    assert gate.margin is not None, "only margins are compared"
    kind = kind_of(gate.metric, candidate, stable)
    names = sorted(candidate.values.keys() & stable.values.keys())
    one_sided = sorted((candidate.missing & stable.values.keys()) | (stable.missing & candidate.values.keys()))
    n, sign = len(names), -1.0 if gate.lower_is_better else 1.0
    seen = _said(gate, "inconclusive", "")
    if n < gate.min_n:
        return replace(seen, n=n, reason=_few(gate, n, len(one_sided)))
    ours, theirs = rows_of(candidate, names), rows_of(stable, names)
    value, other = statistic(kind, ours), statistic(kind, theirs)
    if gate.margin_kind == "rel" and other <= 0:
        raise ValueError(f"a relative margin of a figure of {other:g}; allowed: above 0")
    seen = replace(seen, n=n, candidate=value, stable=other)
    if kind == "rate":
        won, lost = contests(candidate, stable, names)
        if sign < 0:
            won, lost = lost, won
        z = NormalDist().inv_cdf(1 - gate.alpha)
        low, high = paired.rates(won, lost, n, z)
        # a share of stable's rate is one of a rate that is itself uncertain: its lower bound makes the smaller margin
        share = wilson(other * n, n, 1 - 2 * gate.alpha)[0] if gate.margin_kind == "rel" else 1.0
        margin = gate.margin * share
        worst, _ = paired.rates(won, lost + len(one_sided), n + len(one_sided), z)
        bounds = _Bounds(low + margin, high + margin, worst + margin)
        edges = (low, high) if sign > 0 else (-high, -low)
    else:
        found = paired.resampled(ours, theirs, lambda some: statistic(kind, some), seed)
        margin = gate.margin * (other if gate.margin_kind == "rel" else 1.0)
        slack = sorted(
            sign * (one - two) + gate.margin * (two if gate.margin_kind == "rel" else 1.0) for one, two in found
        )
        low, high = quantile(slack, gate.alpha), quantile(slack, 1 - gate.alpha)
        bounds = _Bounds(low, high, low if not one_sided else min(low, 0.0))
        gaps = sorted(one - two for one, two in found)
        edges = quantile(gaps, gate.alpha), quantile(gaps, 1 - gate.alpha)
    seen = replace(seen, low=edges[0], high=edges[1], bound=margin)
    told = (
        f"{value:.4g} against stable's {other:.4g} on n = {n} prompts, difference {value - other:+.4g}, "
        f"{_interval(gate, *edges)}, margin {margin:.4g}"
    )
    return _decided(seen, bounds, told, len(one_sided))


def _decided(seen: Answered, bounds: _Bounds, told: str, missing: int) -> Answered:
    """The verdict of bounds that are above 0 on the right side."""
    if bounds.high < 0:
        return replace(seen, verdict="fail", reason=told)
    if bounds.low > 0 and bounds.pessimist > 0:
        return replace(seen, verdict="pass", reason=told)
    if bounds.low > 0:
        told += f"; but {missing} more prompts have no verdict, and with all of them gone wrong it would not pass"
    return replace(seen, reason=told)


def _said(
    gate: EvaluationGate, verdict: Verdict, reason: str, own: Figure | None = None, bound: float | None = None
) -> Answered:
    fields: dict[str, Any] = (
        {} if own is None else {"n": own.n, "candidate": own.value, "low": own.low, "high": own.high}
    )
    return Answered(gate.metric, verdict, reason, gate.critical, bound=bound, **fields)


def _interval(gate: EvaluationGate, low: float, high: float) -> str:
    return f"{1 - 2 * gate.alpha:.0%} interval {low:.4g} to {high:.4g}"


def _few(gate: EvaluationGate, n: int, missing: int) -> str:
    without = f", {missing} more without a verdict" if missing else ""
    return f"{n} prompts with a verdict{without}; the gate asks for {gate.min_n}"

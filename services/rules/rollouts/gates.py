"""Gates: may the candidate be worse than the stable adapter by more than a margin? Four outcomes.

Promotion needs every gate to pass (intersection-union, so each keeps its whole alpha); an abort takes one,
so there the gates share it. Both bounds hold at every look (`sequential.py`). Missing data never passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.schemas.rollout_events import Arm, GateResult, Verdict
from ratchet.schemas.rollout_policy import UNBOUNDED, Gate
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Means, Paired, Sample
from ratchet.services.rules.rollouts.latency import judge_latency
from ratchet.services.rules.rollouts.sequential import OVERSHOOT, TUNED, pass_radius, radius
from ratchet.services.rules.rollouts.sums import impossible, pooled, too_few, unit_variance

CARRIED, STAGE = 0.7, 0.1
"""Shares of the alpha for failing: of all that was carried, and of each stage by itself (what only more load shows)."""
_WORDS: dict[Verdict, str] = {
    "pass": "shown to be within the margin",
    "fail": "shown to be worse than the margin",
    "inconclusive": "not decided yet",
}


@dataclass(frozen=True)
class Slack:
    """How far inside its margin the candidate is, with the variance of that for failing and for passing.

    ``low`` and ``high`` of a gate follow from the difference, which the slack adds the margin to.
    """

    value: float
    difference: float
    margin: float
    variance: float
    strict_variance: float
    plain: float
    n: float

    @property
    def effective(self) -> float:
        """As many observations of users who do not repeat themselves say as much: what ``max_n`` counts."""
        return self.n * min(self.plain / self.strict_variance, 1.0) if self.strict_variance else self.n


def evaluate(gate: Gate, evidence: Evidence | None, fail_share: int = 1) -> GateResult:
    """Answer one gate from what was observed so far.

    Args:
        gate: the question, with margin and alpha.
        evidence: what both arms showed, by stage; None when nothing was observed.
        fail_share: how many critical gates share alpha for aborting.

    Returns:
        ``pass`` when the candidate is shown to be within the margin, ``fail`` when it is shown to
        be beyond it, ``inconclusive`` while it is neither (or data is missing, ``max_n`` is used up, or what saw
        it is only advisory), ``error`` when the figures make no sense.
    """
    fail_alpha = gate.alpha / max(fail_share, 1)
    if evidence is None or not evidence.strata:
        return inconclusive(gate, Arm(n=0), Arm(n=0), "nothing observed")
    exceedances = [one for one in evidence.strata if isinstance(one, Exceedances)]
    if exceedances:
        seen = judge_latency(gate, exceedances, CARRIED * fail_alpha, STAGE * fail_alpha)
    else:
        seen = _means(gate, [one for one in evidence.strata if isinstance(one, Means | Paired)], fail_alpha)
    if evidence.judged_by is None:
        return seen
    verdict = seen.verdict if evidence.trusted or seen.verdict == "error" else "inconclusive"
    return seen.model_copy(update={"verdict": verdict, "reason": f"{seen.reason}; judged by {evidence.judged_by}"})


def used_up(gate: Gate, result: GateResult) -> bool:
    """Whether a gate took its last look without passing: more observations cannot decide it."""
    return result.verdict == "inconclusive" and (result.progress or 0) >= 1


def inconclusive(gate: Gate, stable: Arm, candidate: Arm, why: str) -> GateResult:
    """No verdict, and why."""
    return GateResult(
        gate=gate.metric,
        verdict="inconclusive",
        stable=stable,
        candidate=candidate,
        margin=gate.margin,
        progress=candidate.n / gate.max_n if candidate.n < gate.max_n else None,
        reason=f"{gate.metric}: {why}",
    )


def _means(gate: Gate, strata: Sequence[Means | Paired], fail_alpha: float) -> GateResult:
    bounded = gate.metric not in UNBOUNDED
    for one in strata:
        for name, sample in (("stable arm", one.stable), ("candidate arm", one.candidate)):
            if sample and (problem := impossible(sample, bounded)):
                return _error(gate, f"{name} {problem}")
        if isinstance(one, Paired) and (problem := impossible(one.difference, bounded, signed=True)):
            return _error(gate, f"differences {problem}")
    usable = [one for one in strata if _has_both(one)]
    old, new = pooled([_arm_of(one, "stable") for one in strata]), pooled([_arm_of(one, "candidate") for one in strata])
    stable, candidate = _arm(old), _arm(new)
    users = _users(usable)
    if why := too_few(gate, stable, candidate, users):
        return inconclusive(gate, stable, candidate, why)
    if not usable:
        return inconclusive(gate, stable, candidate, "no stage has both arms: nothing concurrent to compare with")
    slack = _combined([_slack(gate, one, bounded) for one in usable])
    low, high = _bounds(gate, slack, fail_alpha)
    verdict: Verdict = "inconclusive"
    if slack.value < -high and slack.n >= gate.min_n:
        verdict = "fail"
    elif len(usable) > 1 and usable[-1] is strata[-1]:
        last = _slack(gate, usable[-1], bounded)
        if last.n >= gate.min_n and last.value < -_fail_radius(gate, last, STAGE * fail_alpha):
            verdict = "fail"
    if verdict == "inconclusive" and slack.value > low and slack.effective <= gate.max_n * OVERSHOOT:
        verdict = "pass"
    return _result(gate, verdict, stable, candidate, slack, low, high, _excess(old, new))


def _slack(gate: Gate, one: Means | Paired, bounded: bool) -> Slack:
    """Slack of one stage: above 0 within the margin, whichever way the metric is better."""
    sign = -1.0 if gate.lower_is_better else 1.0
    relative = gate.margin if gate.margin_kind == "rel" else 0.0
    if isinstance(one, Paired):
        d = one.difference
        old = one.stable.mean if one.stable and one.stable.n else 0.5
        margin = relative * abs(old) if relative else gate.margin
        spread = unit_variance(d, bounded, signed=True)
        if relative and one.stable:
            spread += relative**2 * unit_variance(one.stable, bounded)
        step = 1.0 if one.stable else 0.5  # of a judge's comparison a loss is half a point
        at_margin = max(step * margin - margin**2, 0.0) if bounded else 0.0
        strict = max(spread, (spread + at_margin) / 2)
        one_by_one = strict / d.n
        scale = d.design_effect / d.n
        return Slack(
            sign * d.mean + margin, d.mean, margin, spread * scale, one_by_one * d.design_effect, one_by_one, d.n
        )
    old_arm, new_arm = one.stable, one.candidate
    assert old_arm is not None, "asked for where both arms are"
    assert new_arm is not None, "likewise"
    margin = relative * abs(old_arm.mean) if relative else gate.margin
    difference = new_arm.mean - old_arm.mean
    of_new = unit_variance(new_arm, bounded)
    of_stable = (sign - relative) ** 2 * unit_variance(old_arm, bounded) / old_arm.effective_n
    at_margin = _variance_at(old_arm.mean - sign * margin) if bounded and old_arm.binary and new_arm.binary else 0.0
    strict = max(of_new, (of_new + at_margin) / 2)
    return Slack(
        sign * difference + margin,
        difference,
        margin,
        of_stable + of_new / new_arm.effective_n,
        of_stable + strict / new_arm.effective_n,
        of_stable / old_arm.design_effect + strict / new_arm.n,
        new_arm.n,
    )


def _combined(parts: list[Slack]) -> Slack:
    """Add stages up by their numbers (Mantel and Haenszel's weights): never by variances that were observed.

    A rate near 1 by luck has a small variance by luck, and would get more weight for it.
    """
    n = sum(part.n for part in parts)
    weights = [part.n / n for part in parts]
    return Slack(
        sum(w * part.value for w, part in zip(weights, parts, strict=True)),
        sum(w * part.difference for w, part in zip(weights, parts, strict=True)),
        sum(w * part.margin for w, part in zip(weights, parts, strict=True)),
        sum(w**2 * part.variance for w, part in zip(weights, parts, strict=True)),
        sum(w**2 * part.strict_variance for w, part in zip(weights, parts, strict=True)),
        sum(w**2 * part.plain for w, part in zip(weights, parts, strict=True)),
        n,
    )


def _bounds(gate: Gate, slack: Slack, fail_alpha: float) -> tuple[float, float]:
    """Half-widths for passing and for failing; an observation's variance says what ``max_n`` of them will be worth."""
    each = slack.plain * slack.n
    passing = pass_radius(1 / slack.strict_variance, gate.max_n / each, gate.alpha)
    return passing, _fail_radius(gate, slack, CARRIED * fail_alpha)


def _fail_radius(gate: Gate, slack: Slack, alpha: float) -> float:
    return radius(1 / slack.variance, gate.max_n / TUNED / (slack.plain * slack.n), alpha)


def _variance_at(rate: float) -> float:
    """Variance of one observation of a candidate whose rate lies exactly on the margin.

    Passing needs the bound to hold for just that candidate. Where its rate is near 0 or 1, its
    observed variance is often far too small while the first events are still to come; so a pass
    takes the mean of both where that is larger (Farrington and Manning 1990 restrict the variance
    likewise). The mean, because it holds 5% in every simulated case and the larger of both only
    costs observations: tests/unit/services/rules/rollouts/test_gates_error_rates.py.
    """
    inside = min(max(rate, 0.0), 1.0)
    return inside * (1 - inside)


def _has_both(one: Means | Paired) -> bool:
    if isinstance(one, Paired):
        return one.difference.n > 0
    return bool(one.stable and one.stable.n and one.candidate and one.candidate.n)


def _arm_of(one: Means | Paired, side: str) -> Sample | None:
    sample: Sample | None = getattr(one, side)
    if sample is None and isinstance(one, Paired):
        return one.difference  # a judge's comparisons have no arms: both are the pairs
    return sample


def _users(usable: Sequence[Means | Paired]) -> int | None:
    """The smaller arm's users over all stages; a returning user counts once in each, so the largest stage says."""
    counts = []
    for one in usable:
        samples = [one.difference] if isinstance(one, Paired) else [one.stable, one.candidate]
        known = [sample.users for sample in samples if sample and sample.users is not None]
        if known:
            counts.append(min(known))
    return max(counts, default=None)


def _arm(sample: Sample | None) -> Arm:
    if sample is None or sample.n == 0:
        return Arm(n=0)
    return Arm(n=math.floor(sample.n + 1e-9), value=sample.mean)


def _excess(old: Sample | None, new: Sample | None) -> float:
    return max((new.abstained_share if new else 0.0) - (old.abstained_share if old else 0.0), 0.0)


def _result(
    gate: Gate,
    verdict: Verdict,
    stable: Arm,
    candidate: Arm,
    slack: Slack,
    passing: float,
    failing: float,
    excess: float,
) -> GateResult:
    sign = -1.0 if gate.lower_is_better else 1.0
    worst = passing - sign * slack.difference
    reason = (
        f"{gate.metric}: candidate {candidate.value or 0:.4f} of {candidate.n}, stable {stable.value or 0:.4f} of"
        f" {stable.n}; {_WORDS[verdict]}: worse by at most {worst:.4f}, margin {slack.margin:.4f}"
    )
    # Missing data never passes: what the candidate leaves without a verdict beyond the stable arm's share
    # may all have failed (a worst case, after Manski 1990), and must still be within the margin.
    if verdict == "pass" and slack.value - passing <= excess:
        verdict = "inconclusive"
        reason = f"{gate.metric}: within the margin but for the {excess:.1%} of answers that have no verdict"
    if verdict == "inconclusive" and slack.effective > gate.max_n:
        reason += f"; max_n {gate.max_n} is used up"
    below, above = (passing, failing) if sign > 0 else (failing, passing)
    return GateResult(
        gate=gate.metric,
        verdict=verdict,
        stable=stable,
        candidate=candidate,
        difference=slack.difference,
        low=slack.difference - below,
        high=slack.difference + above,
        margin=slack.margin,
        progress=min(slack.effective / gate.max_n, 1.0),
        reason=reason,
    )


def _error(gate: Gate, why: str) -> GateResult:
    nothing = Arm(n=0)
    return GateResult(
        gate=gate.metric,
        verdict="error",
        stable=nothing,
        candidate=nothing,
        margin=gate.margin,
        reason=f"{gate.metric}: {why}",
    )

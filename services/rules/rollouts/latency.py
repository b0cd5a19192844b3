"""The latency gate: does the candidate exceed the stable arm's P95 plus the margin in more than 5% of its calls?

There is no asymptotic variance of a quantile in it: an exceedance is a proportion, which adds up over stages
and from ClickHouse's ``countIf`` (an e-process of bets, `sequential.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratchet.schemas.rollout_events import Arm, GateResult, Verdict
from ratchet.schemas.rollout_policy import Gate
from ratchet.services.rules.rollouts.evidence import Exceedances
from ratchet.services.rules.rollouts.sequential import EXCEEDANCE, TUNED, log_e_faster, log_e_slower, radius
from ratchet.services.rules.rollouts.sums import impossible, too_few

_WORDS: dict[Verdict, str] = {"pass": "shown to be fast enough", "fail": "shown to be too slow"}


def judge_latency(gate: Gate, strata: Sequence[Exceedances], fail_alpha: float, stage_alpha: float) -> GateResult:
    """Answer the gate.

    Args:
        gate: the question; its margin is over the stable arm's P95.
        strata: each stage's counts, the present one last.
        fail_alpha: the chance that all of them together call a fast enough candidate too slow.
        stage_alpha: likewise the present stage alone.
    """
    for one in strata:
        figures = (one.p95_stable_ms, one.p95_candidate_ms, one.threshold_ms)
        sensible = all(value is None or (math.isfinite(value) and value >= 0) for value in figures)
        if not sensible or one.n_stable < 0 or impossible(one.over, bounded=True):
            nothing = Arm(n=0)
            reason = f"{gate.metric}: impossible figures {one}"
            return GateResult(
                gate=gate.metric, verdict="error", stable=nothing, candidate=nothing, margin=gate.margin, reason=reason
            )
    usable = [one for one in strata if one.threshold_ms is not None and one.n_stable and one.over.n]
    last = usable[-1] if usable else strata[-1]
    stable = Arm(n=sum(one.n_stable for one in strata), value=last.p95_stable_ms)
    candidate = Arm(n=math.floor(sum(one.over.n for one in strata)), value=last.p95_candidate_ms)
    users = max((known for one in usable if (known := _users(one)) is not None), default=None)
    if why := too_few(gate, stable, candidate, users):
        return _result(gate, "inconclusive", stable, candidate, why, None)
    if not usable:
        return _result(gate, "inconclusive", stable, candidate, "no threshold: no stage has both arms", None)
    n, k = (sum(column) for column in zip(*map(_counted, usable), strict=True))
    verdict: Verdict = "inconclusive"
    faster = log_e_faster(n, k)
    if log_e_slower(n, k) >= math.log(1 / fail_alpha) or (
        len(usable) > 1 and last is strata[-1] and log_e_slower(*_counted(last)) >= math.log(1 / stage_alpha)
    ):
        verdict = "fail"
    elif faster >= math.log(1 / gate.alpha):
        verdict = "pass"
    exceeded, calls = sum(one.over.total for one in usable), sum(one.over.n for one in usable)
    share = exceeded / calls
    around = radius(n / _spread(share), gate.max_n / TUNED / _spread(share), gate.alpha / 2)
    low, high = max(share - around, 0.0), min(share + around, 1.0)
    why = (
        f"{share:.1%} ({low:.1%} to {high:.1%}) of the candidate's {calls:.0f} calls took longer than"
        f" {last.threshold_ms:.0f} ms (stable P95 {last.p95_stable_ms:.0f} ms of {last.n_stable}, plus margin),"
        f" allowed 5%; {_WORDS.get(verdict, 'not decided yet')}"
    )
    effective = sum(one.over.effective_n for one in usable)
    if verdict == "inconclusive" and effective > gate.max_n:
        why += f"; max_n {gate.max_n} is used up"
    margin = (last.threshold_ms or 0.0) - (last.p95_stable_ms or 0.0)
    return _result(gate, verdict, stable, candidate, why, margin, effective)


def _counted(one: Exceedances) -> tuple[float, float]:
    """Calls and exceedances as independent ones.

    The threshold is itself estimated from n_stable calls. Counting the candidate's calls at
    n·s/(n+s) gives the exceedance rate the variance that it has with that estimate inside; a user's
    calls count for less where they resemble each other.
    """
    share = one.n_stable / (one.n_stable + one.over.n) / one.over.design_effect
    return one.over.n * share, one.over.total * share


def _spread(share: float) -> float:
    inside = min(max(share, EXCEEDANCE / 5), 1 - EXCEEDANCE / 5)
    return inside * (1 - inside)


def _users(one: Exceedances) -> int | None:
    known = [n for n in (one.over.users, one.stable_users) if n is not None]
    return min(known, default=None)


def _result(
    gate: Gate,
    verdict: Verdict,
    stable: Arm,
    candidate: Arm,
    why: str,
    margin: float | None,
    effective: float = 0.0,
) -> GateResult:
    known = stable.value is not None and candidate.value is not None
    return GateResult(
        gate=gate.metric,
        verdict=verdict,
        stable=stable,
        candidate=candidate,
        difference=(candidate.value or 0.0) - (stable.value or 0.0) if known else None,
        margin=gate.margin if margin is None else margin,
        progress=min(effective / gate.max_n, 1.0),
        reason=f"{gate.metric}: {why}",
    )

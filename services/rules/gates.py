"""Gates: may the candidate be worse than the stable adapter by more than a margin? Four outcomes.

Rates and means are compared by a one-sided confidence sequence (normal mixture, Howard et al.
2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"), the 95th percentile of
the latency by an e-process of bets (Waudby-Smith and Ramdas 2024). Both stay valid however often
the controller looks. Promotion needs every gate to pass (intersection-union, so each keeps its
whole alpha); an abort takes one, so there the gates share it. Missing data never passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ratchet.schemas.rollout_events import Arm, GateResult
from ratchet.schemas.rollout_policy import Gate, Metric

LOWER_IS_BETTER: frozenset[Metric] = frozenset({"error_rate", "latency_p95"})
QUANTILE = 0.95
EXCEEDANCE = 1 - QUANTILE

# Bets against "the candidate is too slow" (at most 1/0.95) and against "it is fast enough" (at
# most 1/0.05). A mixture of a few is within a small factor of the best single bet.
_FASTER_BETS = tuple(share / QUANTILE for share in (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9))
_SLOWER_BETS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Sample:
    """``n`` observations between 0 and 1, their sum and the sum of their squares.

    ``n`` may be fractional where observations carry weights (Kish's effective size). ``abstained`` more
    were asked about and got no verdict; they are in none of the figures.
    """

    n: float
    total: float
    squares: float
    abstained: float = 0.0

    @classmethod
    def proportion(cls, n: float, k: float) -> Sample:
        """``k`` successes among ``n``."""
        return cls(n, k, k)

    @property
    def mean(self) -> float:
        """The mean as observed, without smoothing."""
        return self.total / self.n

    @property
    def variance(self) -> float:
        """Variance of one observation, with half a 0 and half a 1 added to the sample.

        The added halves (Agresti and Coull's idea) keep the variance from collapsing to 0
        when all of a few observations agree; they vanish as n grows. The mean stays raw: shrinking
        it would favour the arm with more traffic.
        """
        mean = (self.total + 0.5) / (self.n + 1)
        return max((self.squares + 0.5) / (self.n + 1) - mean * mean, 0.0)

    @property
    def binary(self) -> bool:
        """Whether every observation is 0 or 1."""
        return self.squares == self.total

    @property
    def abstained_share(self) -> float:
        """Of all that was asked about, the share without a verdict."""
        asked = self.n + self.abstained
        return self.abstained / asked if asked else 0.0

    def problem(self) -> str | None:
        """Say why these figures cannot be counts of values between 0 and 1."""
        if not all(math.isfinite(value) for value in (self.n, self.total, self.squares, self.abstained)):
            return f"not finite: n={self.n}, sum={self.total}, sum of squares={self.squares}"
        slack = 1e-6 * max(self.n, 1.0)
        if self.n < 0 or not (-slack <= self.squares <= self.total + slack <= self.n + 2 * slack):
            return f"impossible: n={self.n}, sum={self.total}, sum of squares={self.squares}"
        return None


@dataclass(frozen=True)
class Means:
    """Both arms of a gate on a rate or a mean of scores; None where nothing could be observed."""

    stable: Sample | None
    candidate: Sample | None


@dataclass(frozen=True)
class Exceedances:
    """Both arms of the latency gate; latencies in milliseconds.

    ``exceeded`` of the candidate's ``n_candidate`` calls took longer than ``threshold_ms``, which
    is `threshold` of the stable arm's ``p95_stable_ms`` in the same window.
    """

    n_stable: int
    p95_stable_ms: float | None
    n_candidate: int
    p95_candidate_ms: float | None
    threshold_ms: float | None
    exceeded: int


@dataclass(frozen=True)
class Judged:
    """What a judge saw, and how it stands: what one that is not ``trusted`` saw is shown, and decides nothing."""

    seen: Means
    by: str
    trusted: bool


Evidence = Means | Exceedances | Judged


def threshold(gate: Gate, p95_stable_ms: float) -> float:
    """The latency in milliseconds that at most 5% of the candidate's calls may exceed."""
    return p95_stable_ms * (1 + gate.margin) if gate.margin_kind == "rel" else p95_stable_ms + gate.margin


def evaluate(gate: Gate, evidence: Evidence | None, fail_share: int = 1) -> GateResult:
    """Answer one gate from what was observed so far.

    Args:
        gate: the question, with margin and alpha.
        evidence: counts of both arms; None when nothing was observed.
        fail_share: how many critical gates share alpha for aborting.

    Returns:
        ``pass`` when the candidate is shown to be within the margin, ``fail`` when it is shown to
        be beyond it, ``inconclusive`` while it is neither (or data is missing, or what saw it is only
        advisory), ``error`` when the figures make no sense.
    """
    fail_alpha = gate.alpha / max(fail_share, 1)
    if evidence is None:
        return _result(gate, "inconclusive", Arm(n=0), Arm(n=0), reason=f"{gate.metric}: nothing observed")
    if isinstance(evidence, Judged):
        seen = evaluate(gate, evidence.seen, fail_share)
        verdict = seen.verdict if evidence.trusted or seen.verdict == "error" else "inconclusive"
        return seen.model_copy(update={"verdict": verdict, "reason": f"{seen.reason}; judged by {evidence.by}"})
    if isinstance(evidence, Exceedances):
        return _latency(gate, evidence, fail_alpha)
    return _means(gate, evidence, fail_alpha)


def radius(information: float, planned: float, alpha: float) -> float:
    """Half-width of the one-sided confidence sequence for a difference of means.

    Args:
        information: V = 1/SE² so far.
        planned: V at the number of observations where the bound shall be tightest.
        alpha: the chance that the bound is ever wrong.
    """
    log_inverse = math.log(1 / alpha)
    rho = planned / (2 * log_inverse + math.log(1 + 2 * log_inverse))
    spread = math.sqrt((information + rho) / rho)
    return math.sqrt(2 * (information + rho) * math.log(1 + spread / (2 * alpha))) / information


def log_e_faster(n: float, exceeded: float) -> float:
    """Log of the e-value against "more than 5% exceed", from counts (mixture of bets)."""
    return _log_mean(
        [(n - exceeded) * math.log1p(b * EXCEEDANCE) + exceeded * math.log1p(-b * QUANTILE) for b in _FASTER_BETS]
    )


def log_e_slower(n: float, exceeded: float) -> float:
    """Log of the e-value against "at most 5% exceed", from counts (mixture of bets)."""
    return _log_mean(
        [exceeded * math.log1p(b * QUANTILE) + (n - exceeded) * math.log1p(-b * EXCEEDANCE) for b in _SLOWER_BETS]
    )


def _log_mean(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / len(logs))


def _result(
    gate: Gate,
    verdict: str,
    stable: Arm,
    candidate: Arm,
    *,
    reason: str,
    margin: float | None = None,
    low: float | None = None,
    high: float | None = None,
) -> GateResult:
    known = stable.value is not None and candidate.value is not None
    return GateResult.model_validate(
        {
            "gate": gate.metric,
            "verdict": verdict,
            "stable": stable,
            "candidate": candidate,
            "difference": (candidate.value or 0.0) - (stable.value or 0.0) if known else None,
            "low": low,
            "high": high,
            "margin": gate.margin if margin is None else margin,
            "reason": reason,
        }
    )


def _waiting(gate: Gate, stable: Arm, candidate: Arm) -> GateResult | None:
    for name, arm in (("stable", stable), ("candidate", candidate)):
        if arm.n == 0:
            reason = f"{gate.metric}: no data of the {name} arm"
            return _result(gate, "inconclusive", stable, candidate, reason=reason)
    short = min(stable.n, candidate.n)
    if short < gate.min_n:
        reason = f"{gate.metric}: waiting for n: {short} of {gate.min_n} in the smaller arm"
        return _result(gate, "inconclusive", stable, candidate, reason=reason)
    return None


def _means(gate: Gate, evidence: Means, fail_alpha: float) -> GateResult:
    for name, sample in (("stable", evidence.stable), ("candidate", evidence.candidate)):
        problem = sample.problem() if sample else None
        if problem:
            return _result(gate, "error", Arm(n=0), Arm(n=0), reason=f"{gate.metric}: {name} arm {problem}")
    stable, candidate = (_arm(evidence.stable), _arm(evidence.candidate))
    waiting = _waiting(gate, stable, candidate)
    if waiting or evidence.stable is None or evidence.candidate is None:
        return waiting or _result(gate, "inconclusive", stable, candidate, reason=f"{gate.metric}: no data")
    old, new = evidence.stable, evidence.candidate
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    difference = new.mean - old.mean
    # slack > 0 means "within the margin"; a relative margin moves with the stable arm's mean,
    # and so does the slack's variance
    relative = gate.margin if gate.margin_kind == "rel" else 0.0
    margin = relative * old.mean if relative else gate.margin
    slack = sign * difference + margin
    of_stable = (sign - relative) ** 2 * old.variance * new.n / old.n
    at_margin = _variance_at(old.mean - sign * margin) if old.binary and new.binary else 0.0
    for_pass = _radius(gate, new.n, of_stable + max(new.variance, (new.variance + at_margin) / 2), gate.alpha)
    for_fail = _radius(gate, new.n, of_stable + new.variance, fail_alpha)
    below, above = (for_pass, for_fail) if sign > 0 else (for_fail, for_pass)
    verdict = "pass" if slack > for_pass else "fail" if slack < -for_fail else "inconclusive"
    worst = for_pass - sign * difference
    reason = (
        f"{gate.metric}: candidate {new.mean:.4f} of {candidate.n}, stable {old.mean:.4f} of {stable.n}; "
        f"{_WORDS[verdict]}: worse by at most {worst:.4f}, margin {margin:.4f}"
    )
    # Missing data never passes: what the candidate leaves without a verdict beyond the stable arm's share
    # may all have failed (a worst case, after Manski 1990), and must still be within the margin.
    excess = max(new.abstained_share - old.abstained_share, 0.0)
    if verdict == "pass" and slack - for_pass <= excess:
        verdict = "inconclusive"
        shares = f"{new.abstained_share:.1%} of the candidate's answers, {old.abstained_share:.1%} of stable's"
        reason = f"{gate.metric}: within the margin but for what has no verdict: {shares}"
    low, high = difference - below, difference + above
    return _result(gate, verdict, stable, candidate, reason=reason, margin=margin, low=low, high=high)


def _radius(gate: Gate, n: float, per_candidate: float, alpha: float) -> float:
    return radius(n / per_candidate, gate.max_n / per_candidate, alpha)


def _variance_at(rate: float) -> float:
    """Variance of one observation of a candidate whose rate lies exactly on the margin.

    Passing needs the bound to hold for just that candidate. Where its rate is near 0 or 1, its
    observed variance is often far too small while the first events are still to come; so a pass
    takes the mean of both where that is larger (Farrington and Manning 1990 restrict the variance
    likewise). The mean, because it holds 5% in every simulated case and the larger of both only
    costs observations: tests/unit/services/rules/test_gates_error_rates.py.
    """
    inside = min(max(rate, 0.0), 1.0)
    return inside * (1 - inside)


_WORDS = {
    "pass": "shown to be within the margin",
    "fail": "shown to be worse than the margin",
    "inconclusive": "not decided yet",
}


def _arm(sample: Sample | None) -> Arm:
    if sample is None or sample.n == 0:
        return Arm(n=0)
    return Arm(n=math.floor(sample.n + 1e-9), value=sample.mean)


def _latency(gate: Gate, evidence: Exceedances, fail_alpha: float) -> GateResult:
    figures = (evidence.p95_stable_ms, evidence.p95_candidate_ms, evidence.threshold_ms)
    sensible = all(value is None or (math.isfinite(value) and value >= 0) for value in figures)
    if not sensible or not 0 <= evidence.exceeded <= evidence.n_candidate or evidence.n_stable < 0:
        reason = f"{gate.metric}: impossible figures {evidence}"
        return _result(gate, "error", Arm(n=0), Arm(n=0), reason=reason)
    stable = Arm(n=evidence.n_stable, value=evidence.p95_stable_ms)
    candidate = Arm(n=evidence.n_candidate, value=evidence.p95_candidate_ms)
    waiting = _waiting(gate, stable, candidate)
    if waiting or evidence.threshold_ms is None or evidence.p95_stable_ms is None:
        return waiting or _result(gate, "inconclusive", stable, candidate, reason=f"{gate.metric}: no threshold")
    # The threshold is itself estimated from n_stable calls. Counting the candidate's calls at
    # n·s/(n+s) gives the exceedance rate the variance that it has with that estimate inside.
    share = evidence.n_stable / (evidence.n_stable + evidence.n_candidate)
    n, k = evidence.n_candidate * share, evidence.exceeded * share
    faster, slower = log_e_faster(n, k), log_e_slower(n, k)
    verdict = "inconclusive"
    if faster >= math.log(1 / gate.alpha):
        verdict = "pass"
    elif slower >= math.log(1 / fail_alpha):
        verdict = "fail"
    reason = (
        f"{gate.metric}: {evidence.exceeded} of the candidate's {evidence.n_candidate} calls took longer than "
        f"{evidence.threshold_ms:.0f} ms (stable P95 {evidence.p95_stable_ms:.0f} ms of {evidence.n_stable}, plus "
        f"margin), allowed 5%; {_WORDS[verdict]}"
    )
    margin = evidence.threshold_ms - evidence.p95_stable_ms
    return _result(gate, verdict, stable, candidate, reason=reason, margin=margin)

"""Each gate's evidence: which question a metric asks of ClickHouse, and what the answer is as the gates take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ratchet.consumers.calibration import InForce, Questions, comparing, in_force
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import CHECK, Gate, Metric
from ratchet.schemas.rows import instant
from ratchet.services.rules.rollouts.clustering import Sums, sample
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Means, Paired, Sample, threshold

_NO_THRESHOLD = 1e300
_NOTHING = Sample(0, 0, 0, users=0)
_SUMS = tuple(Sums.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Window:
    """Calls from an instant on, and before another."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Question:
    """A question by name with the parameters of its own, and the judge whose word the answer is."""

    name: str
    params: Mapping[str, Any]
    judge: InForce | None = None


def question(
    store: Questions, task: str, metric: Metric, policy: TaskPolicy, now: datetime, pairs: bool
) -> Question | None:
    """What a metric of values asks: of both arms' own calls, or of pairs of answers to one request.

    None where there is nothing to ask: no refusal check is declared, nobody says a word of a copy.
    """
    match metric:
        case "error_rate" | "cost" | "length":
            return Question("rollout_pair_calls" if pairs else "rollout_calls", {"metric": metric})
        case "judge_score":
            judge = in_force(store, task, policy, now)
            by = {"rubric": policy.judge.rubric, "judge": judge.judge, "rubric_hash": judge.rubric_hash}
            if pairs:
                whole = {"kind": "pointwise", "passing": True, "failures_count": False}
                return Question("rollout_pair_scores", by | whole, judge)
            return Question("rollout_judged", by, judge)
        case "win_rate" if pairs:
            judge = comparing(store, task, policy, now)
            by = {"rubric": policy.pairwise.rubric, "judge": judge.judge, "rubric_hash": judge.rubric_hash}
            return Question("rollout_pair_wins", by, judge)
        case "satisfaction" if not pairs:
            return Question("rollout_feedback", {"kind": "thumb", "failures_count": False})
        case "completion" if policy.completion == "outcome":
            return None if pairs else Question("rollout_feedback", {"kind": "outcome", "failures_count": True})
    check = _check(metric, policy)
    if check is None:
        return None
    # a call without an answer completes nothing; of the other checks it says nothing, and the error rate has it
    of = {"rubric": check, "passing": metric != "refusal_rate", "failures_count": metric == "completion"}
    if pairs:
        return Question("rollout_pair_scores", of | {"kind": "check", "judge": "", "rubric_hash": ""})
    return Question("rollout_checks", of)


def _check(metric: Metric, policy: TaskPolicy) -> str | None:
    """The check that a metric rests on."""
    if metric == "completion":
        return policy.completion
    if metric == "refusal_rate":
        return next((check.name for check in policy.checks if check.kind == "refusal"), None)
    return metric.removeprefix(CHECK) if metric.startswith(CHECK) else None


def unpaired(
    store: Questions, state: Rollout, policy: TaskPolicy, gate: Gate, stages: Sequence[Window], now: datetime
) -> Evidence | None:
    """A gate's evidence of stages with users of both arms; a stage is a stratum, oldest first.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    if not stages:
        return None
    about = _about(state) | {
        "since": [instant(one.since) for one in stages],
        "until": [instant(one.until) for one in stages],
    }
    if gate.metric == "latency_p95":
        return Evidence(_latency(store, gate, about | {"candidate": state.candidate, "paired": False}))
    asked = question(store, state.task, gate.metric, policy, now, pairs=False)
    if asked is None:
        return None
    rows = store.query(asked.name, **about, **asked.params)
    arms = {(row["stage_number"], bool(row["candidate"])): _sample(row) for row in rows}
    strata = [Means(arms.get((at, False)), arms.get((at, True))) for at in range(1, len(stages) + 1)]
    return _evidence(strata, asked.judge)


def paired(
    store: Questions, state: Rollout, policy: TaskPolicy, gate: Gate, stage: Window, now: datetime
) -> Evidence | None:
    """A gate's evidence of a stage in which the candidate answers copies of requests that stable answers.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    if gate.metric == "latency_p95":
        about = _about(state) | {"since": [instant(stage.since)], "until": [instant(stage.until)]}
        return Evidence(_latency(store, gate, about | {"candidate": state.candidate, "paired": True}))
    return compared(store, state, policy, gate.metric, state.candidate or "", stage, now)


def compared(
    store: Questions,
    state: Rollout,
    policy: TaskPolicy,
    metric: Metric,
    candidate: str,
    stage: Window,
    now: datetime,
) -> Evidence | None:
    """The difference of one candidate's copies to stable's answers, in any metric of values.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    asked = question(store, state.task, metric, policy, now, pairs=True)
    if asked is None:
        return None
    about = _about(state) | {"since": instant(stage.since), "until": instant(stage.until), "candidate": candidate}
    rows = store.query(asked.name, **about, **asked.params)
    sides = {row["side"]: _sample(row) for row in rows}
    one = Paired(sides.get("difference", _NOTHING), sides.get("stable"), sides.get("candidate"))
    return _evidence([one], asked.judge)


def _about(state: Rollout) -> dict[str, Any]:
    return {"task": state.task, "rollout_id": state.rollout_id}


def _evidence(strata: Sequence[Means | Paired], judge: InForce | None) -> Evidence:
    if judge is None:
        return Evidence(tuple(strata))
    return Evidence(tuple(strata), f"{judge.judge or 'nobody'}, {judge.standing}", judge.standing.trusted)


def _sample(row: Mapping[str, Any]) -> Sample:
    return sample(Sums(**{name: row[name] for name in _SUMS}))


def _latency(store: Questions, gate: Gate, about: Mapping[str, Any]) -> tuple[Exceedances, ...]:
    """A stratum a stage: how the candidate's calls compare with a threshold over that stage's own stable P95."""
    stages = range(1, len(about["since"]) + 1)
    rows = store.query("rollout_latency", **about)
    arms = {(row["stage_number"], bool(row["candidate"])): row for row in rows}
    limits = [threshold(gate, float(row["p95_ms"])) if (row := arms.get((at, False))) else None for at in stages]
    ask = [_NO_THRESHOLD if limit is None else limit for limit in limits]
    rows = store.query("rollout_slow", **about, threshold_ms=ask)
    slow = {row["stage_number"]: _sample(row) for row in rows}
    return tuple(
        _exceedances(arms.get((at, False)), arms.get((at, True)), limit, slow.get(at, _NOTHING))
        for at, limit in zip(stages, limits, strict=True)
    )


def _exceedances(
    stable: Mapping[str, Any] | None, candidate: Mapping[str, Any] | None, limit: float | None, over: Sample
) -> Exceedances:
    return Exceedances(
        n_stable=stable["rows"] if stable else 0,
        p95_stable_ms=float(stable["p95_ms"]) if stable else None,
        threshold_ms=limit,
        over=over,
        p95_candidate_ms=float(candidate["p95_ms"]) if candidate else None,
        stable_users=stable["users"] if stable else None,
    )

"""What a rollout's stage has shown so far: questions to ClickHouse, answers as the gates take them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ratchet.consumers.calibration import Questions, in_force
from ratchet.schemas.decoding import parse
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import Gate, Metric, Stage
from ratchet.schemas.rows import instant
from ratchet.services.rules.deciding import gates_of, stage_of
from ratchet.services.rules.evidence import Evidence, Exceedances, Means, Sample, StageEvidence, Stratum, threshold

FULL = 10_000
_NO_THRESHOLD = 1e300


@dataclass(frozen=True)
class Window:
    """One arm of a comparison: whose calls, from when, until before when."""

    task: str
    rollout_id: str
    arm: str
    since: datetime
    until: datetime

    def params(self) -> dict[str, Any]:
        """As the queries bind them."""
        return {
            "task": self.task,
            "rollout_id": self.rollout_id,
            "arm": self.arm,
            "since": instant(self.since),
            "until": instant(self.until),
        }


def unobservable(stage: Stage, policy: TaskPolicy, copies_wait: bool) -> frozenset[Metric]:
    """The metrics that a stage without users of the candidate cannot show.

    Latency is among them where copies wait behind users' requests: they are slow by that, whatever the adapter.
    """
    if stage.weight_bp > 0:
        return frozenset()
    hidden: set[Metric] = {"satisfaction"}
    if policy.completion == "outcome":
        hidden.add("completion")
    if copies_wait:
        hidden.add("latency_p95")
    return frozenset(hidden)


def observe(
    store: Questions, state: Rollout, policy: TaskPolicy, now: datetime, copies_wait: bool = False
) -> StageEvidence:
    """Gather the evidence of a rollout's present stage.

    The stable arm is the concurrent one: same window, same rollout. In a shadow stage it is the
    mirrored requests as production answered them. At 100% nobody is left on it, so its counts are
    those of the stage before, frozen; without that stage in the audit log the arm is missing.

    Args:
        store: ClickHouse.
        state: the routing table in force.
        policy: the task's stages and gates.
        now: the present instant.
        copies_wait: the model servers put mirrored copies behind users' requests.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    stage = stage_of(policy.rollout, state.stage)
    if stage is None:
        return StageEvidence()
    stable, candidate = windows(store, state, stage, now)
    hidden = unobservable(stage, policy, copies_wait)
    asked = [gate for gate in gates_of(policy.rollout, stage) if gate.metric not in hidden]
    found = {gate.metric: _evidence(store, gate, stable, candidate, policy, now) for gate in asked}
    return StageEvidence(found, hidden, requests=_calls(store, candidate)["n"])


def windows(store: Questions, state: Rollout, stage: Stage, now: datetime) -> tuple[Window | None, Window]:
    """The windows of the stable and the candidate's arm; None where no stable arm can be named."""
    since, until = state.stage_started_at, now + timedelta(seconds=1)
    arm = "canary" if stage.weight_bp > 0 else "shadow"
    candidate = Window(state.task, state.rollout_id, arm, since, until)
    if stage.weight_bp < FULL:
        other = "stable" if stage.weight_bp > 0 else "mirrored"
        return Window(state.task, state.rollout_id, other, since, until), candidate
    frozen = frozen_window(history(store, state), stage.name)
    if frozen is None:
        return None, candidate
    return Window(state.task, state.rollout_id, "stable", *frozen), candidate


def history(store: Questions, state: Rollout) -> list[Rollout]:
    """Every routing table of this rollout, oldest first, from the audit log."""
    rows = store.query("rollout_history", task=state.task, rollout_id=state.rollout_id)
    return [parse(Rollout, row["state"].encode()) for row in rows]


def frozen_window(states: list[Rollout], full_stage: str) -> tuple[datetime, datetime] | None:
    """When the last stage with both arms began and ended, from a rollout's tables, oldest first."""
    split = [index for index, state in enumerate(states) if state.stage != full_stage and state.weight_bp < FULL]
    if not split or split[-1] + 1 >= len(states):
        return None
    return states[split[-1]].stage_started_at, states[split[-1] + 1].at


def _evidence(
    store: Questions, gate: Gate, stable: Window | None, candidate: Window, policy: TaskPolicy, now: datetime
) -> Evidence | None:
    if stable is None:
        return None
    if gate.metric == "judge_score":
        return _judged(store, stable, candidate, policy, now)
    return Evidence((_stratum(store, gate, stable, candidate, policy),))


def _stratum(store: Questions, gate: Gate, stable: Window, candidate: Window, policy: TaskPolicy) -> Stratum:
    match gate.metric:
        case "latency_p95":
            return _latency(store, gate, stable, candidate)
        case "error_rate":
            return Means(_errors(store, stable), _errors(store, candidate))
        case "satisfaction":
            return Means(_feedback(store, stable, "thumb", False), _feedback(store, candidate, "thumb", False))
        case "completion" if policy.completion == "outcome":
            return Means(_feedback(store, stable, "outcome", True), _feedback(store, candidate, "outcome", True))
        case "completion":
            name = policy.completion
            return Means(_scores(store, stable, "check", name, True), _scores(store, candidate, "check", name, True))
        case _:
            return Means(None, None)


def _judged(store: Questions, stable: Window, candidate: Window, policy: TaskPolicy, now: datetime) -> Evidence:
    """Both arms by the judge whose word counts; while it is not trusted, what it says is advisory."""
    judge = in_force(store, candidate.task, policy, now)
    rubric, by = policy.judge.rubric, (judge.judge, judge.rubric_hash)
    means = Means(
        _scores(store, stable, "pointwise", rubric, False, *by),
        _scores(store, candidate, "pointwise", rubric, False, *by),
    )
    return Evidence((means,), f"{judge.judge or 'nobody'}, {judge.standing}", judge.standing.trusted)


def _calls(store: Questions, window: Window, threshold_ms: float = _NO_THRESHOLD) -> dict[str, Any]:
    return store.query("rollout_calls", **window.params(), threshold_ms=threshold_ms)[0]


def _errors(store: Questions, window: Window) -> Sample:
    row = _calls(store, window)
    return Sample.proportion(row["n"], row["errors"])


def _latency(store: Questions, gate: Gate, stable: Window, candidate: Window) -> Exceedances:
    old = _calls(store, stable)
    p95 = float(old["p95_ms"]) if old["timed"] else None
    limit = None if p95 is None else threshold(gate, p95)
    new = _calls(store, candidate, _NO_THRESHOLD if limit is None else limit)
    return Exceedances(
        n_stable=old["timed"],
        p95_stable_ms=p95,
        threshold_ms=limit,
        over=Sample.proportion(new["timed"], new["exceeded"]),
        p95_candidate_ms=float(new["p95_ms"]) if new["timed"] else None,
    )


def _feedback(store: Questions, window: Window, kind: str, failures_count: bool) -> Sample:
    row = store.query("rollout_feedback", **window.params(), kind=kind, failures_count=failures_count)[0]
    return Sample(float(row["n"]), float(row["total"]), float(row["squares"]))


def _scores(
    store: Questions,
    window: Window,
    kind: str,
    rubric: str,
    failures_count: bool,
    judge: str = "",
    rubric_hash: str = "",
) -> Sample | None:
    params = window.params() | {"kind": kind, "rubric": rubric, "failures_count": failures_count}
    params |= {"judge": judge, "rubric_hash": rubric_hash}
    row = store.query("rollout_scores", **params)[0]
    if not row["rows"]:
        return None
    n = float(row["n"])
    # a judge sees a sample and abstains for reasons that are not the answer's
    abstained = float(row["abstained"]) if kind == "check" else 0.0
    return Sample(n, n * row["mean"], n * row["mean_square"], abstained)

"""The rollout's state machine: evidence to decision, decision to the next routing table. Pure.

A rollout goes through its policy's stages under one salt, so that the keys that got the candidate
at 5% get it at 20% too. It advances when every critical gate passes and the stage's minimum
duration is over; it aborts when any critical gate fails; it never overrides a person: a paused or
ended rollout changes by an operator's verb alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import ADAPTER_NAME, BASE
from ratchet.schemas.rollout_events import GateResult, Rollout, RolloutAction
from ratchet.schemas.rollout_policy import Gate, Metric, RolloutPolicy, Stage
from ratchet.services.rules.gates import Evidence, evaluate

UNDER_WAY = ("running", "paused")
CONTROLLER = "controller"


@dataclass(frozen=True)
class StageEvidence:
    """What was observed in one stage: by gate, and which metrics this stage cannot show.

    ``unobservable``: users never see a mirrored answer, so a stage without traffic for the
    candidate has no thumbs and no outcomes of it.
    """

    by_gate: Mapping[Gate, Evidence | None] = field(default_factory=dict)
    unobservable: frozenset[Metric] = frozenset()


@dataclass(frozen=True)
class Decision:
    """What to do next, why, and the gates' figures it rests on."""

    action: Literal["advance", "promote", "abort", "pause", "wait"]
    reason: str
    gates: tuple[GateResult, ...] = ()


def stage_of(policy: RolloutPolicy, name: str) -> Stage | None:
    """The policy's stage of this name; None when the policy was changed and has it no more."""
    return next((stage for stage in policy.stages if stage.name == name), None)


def gates_of(policy: RolloutPolicy, stage: Stage) -> list[Gate]:
    """The gates that a stage asks, with its own ``min_n`` where it sets one."""
    gates = policy.gates if stage.gates is None else stage.gates
    return [gate if stage.min_n is None else gate.model_copy(update={"min_n": stage.min_n}) for gate in gates]


def judge_stage(stage: Stage, evidence: StageEvidence, policy: RolloutPolicy) -> list[tuple[Gate, GateResult]]:
    """Evaluate the gates of a stage, less those that the stage cannot observe."""
    asked = [gate for gate in gates_of(policy, stage) if gate.metric not in evidence.unobservable]
    share = sum(gate.critical for gate in asked)
    return [(gate, evaluate(gate, evidence.by_gate.get(gate), share)) for gate in asked]


def decide(state: Rollout, evidence: StageEvidence, policy: RolloutPolicy, now: datetime) -> Decision:
    """Decide what a running rollout does next.

    Args:
        state: the routing table in force.
        evidence: what this stage has shown so far.
        policy: the task's stages and gates.
        now: the present instant.

    Returns:
        ``wait`` unless every critical gate passed and ``min_duration_s`` is over (advance, or
        promote after the last stage), one failed (abort), or ``max_wait_s`` is over (what the
        stage's ``on_timeout`` says). A rollout that is not running always waits.
    """
    if state.status != "running":
        return Decision("wait", f"the rollout is {state.status}: only a person changes it")
    stage = stage_of(policy, state.stage)
    if stage is None:
        known = ", ".join(repr(one.name) for one in policy.stages)
        return Decision("pause", f"the policy has no stage {state.stage!r} any more, only {known}")
    judged = judge_stage(stage, evidence, policy)
    results = tuple(result for _, result in judged)
    critical = [result for gate, result in judged if gate.critical]
    failed = [result for result in critical if result.verdict == "fail"]
    if failed:
        return Decision("abort", "; ".join(result.reason for result in failed), results)
    elapsed = (now - state.stage_started_at).total_seconds()
    undecided = [result.reason for result in critical if result.verdict != "pass"]
    if gates_of(policy, stage) and not judged:
        undecided.append(f"stage {stage.name!r} can observe none of its gates; give it gates that it can, or []")
    if not undecided and elapsed >= stage.min_duration_s:
        last = stage.name == policy.stages[-1].name
        reason = f"all {len(critical)} critical gates passed after {elapsed:.0f} s in {stage.name!r}"
        return Decision("promote" if last else "advance", reason, results)
    reason = "; ".join(undecided) or f"{elapsed:.0f} of at least {stage.min_duration_s:.0f} s in {stage.name!r}"
    if elapsed >= stage.max_wait_s and undecided:
        action: Literal["pause", "abort"] = "pause" if stage.on_timeout == "pause" else "abort"
        return Decision(action, f"no decision within {stage.max_wait_s:.0f} s: {reason}", results)
    return Decision("wait", reason, results)


def apply(
    state: Rollout, decision: Decision, policy: RolloutPolicy, now: datetime, event_id: str, actor: str = CONTROLLER
) -> Rollout:
    """The next routing table after a decision; the same one after ``wait``.

    Raises:
        RolloutError: the state does not allow the decision.
    """
    gates = list(decision.gates)
    match decision.action:
        case "wait":
            return state
        case "advance":
            return _advanced(state, policy, now, event_id, actor, decision.reason, gates)
        case "promote":
            return _promoted(state, now, event_id, actor, decision.reason, gates)
        case "abort":
            return abort(state, now, event_id, actor, decision.reason, gates)
        case "pause":
            return pause(state, now, event_id, actor, decision.reason, gates)


def begin(
    task: str,
    candidate: str,
    policy: RolloutPolicy,
    state: Rollout | None,
    now: datetime,
    event_id: str,
    rollout_id: str,
    actor: str = CONTROLLER,
    reason: str = "",
) -> Rollout:
    """Start a rollout of ``candidate`` against what is stable now (the base model at first).

    Raises:
        RolloutError: a rollout is under way, the candidate is stable already, or belongs to another task.
    """
    named = ADAPTER_NAME.match(candidate)
    if named is None or named["task"] != task:
        raise RolloutError(f"{candidate} is no adapter of task {task!r}")
    if state and state.status in UNDER_WAY:
        raise RolloutError(f"a rollout of {state.candidate} is {state.status} in {state.stage!r}: abort it first")
    if state and state.stable == candidate:
        raise RolloutError(f"{candidate} is the stable adapter of {task!r} already")
    stage = policy.stages[0]
    return Rollout(
        id=event_id,
        at=now,
        task=task,
        rollout_id=rollout_id,
        version=state.version + 1 if state else 1,
        status="running",
        stage=stage.name,
        stage_started_at=now,
        stable=state.stable if state else BASE,
        candidate=candidate,
        previous=state.previous if state else None,
        weight_bp=stage.weight_bp,
        mirror_bp=stage.mirror_bp,
        salt=rollout_id,
        action="start",
        actor=actor,
        reason=reason or f"{candidate} was registered",
        operator_seen=state.operator_seen if state else None,
    )


def pause(
    state: Rollout, now: datetime, event_id: str, actor: str, why: str, gates: list[GateResult] | None = None
) -> Rollout:
    """Hold a rollout where it is: the split stays, nothing is decided until a person resumes it.

    Raises:
        RolloutError: no rollout is running.
    """
    if state.status != "running":
        raise RolloutError(f"nothing to pause: the last rollout of {state.task!r} is {state.status}")
    return _next(state, now, event_id, "pause", actor, why, gates, status="paused")


def resume(state: Rollout, policy: RolloutPolicy, now: datetime, event_id: str, actor: str, why: str) -> Rollout:
    """Go on with a paused rollout; its stage starts again, clock and evidence.

    Raises:
        RolloutError: no rollout is paused, or the policy has its stage no more.
    """
    if state.status != "paused":
        raise RolloutError(f"nothing to resume: the last rollout of {state.task!r} is {state.status}")
    if stage_of(policy, state.stage) is None:
        raise RolloutError(f"the policy has no stage {state.stage!r} any more: abort, or promote --full")
    return _next(state, now, event_id, "resume", actor, why, status="running", stage_started_at=now)


def abort(
    state: Rollout, now: datetime, event_id: str, actor: str, why: str, gates: list[GateResult] | None = None
) -> Rollout:
    """Send everything back to the stable adapter at once.

    Raises:
        RolloutError: no rollout is under way.
    """
    if state.status not in UNDER_WAY:
        raise RolloutError(f"nothing to abort: the last rollout of {state.task!r} is {state.status}")
    return _next(state, now, event_id, "abort", actor, why, gates, status="aborted", weight_bp=0, mirror_bp=0)


def promote(
    state: Rollout, policy: RolloutPolicy, now: datetime, event_id: str, actor: str, why: str, full: bool
) -> Rollout:
    """A person's word in place of the gates: to the next stage, or with ``full`` to the end.

    Raises:
        RolloutError: no rollout is under way, or the policy has its stage no more.
    """
    if state.status not in UNDER_WAY:
        raise RolloutError(f"nothing to promote: the last rollout of {state.task!r} is {state.status}")
    if full or state.stage == policy.stages[-1].name:
        return _promoted(state, now, event_id, actor, why, [])
    return _advanced(state, policy, now, event_id, actor, why, [])


def undo(state: Rollout, now: datetime, event_id: str, actor: str, why: str) -> Rollout:
    """Serve the previous stable adapter again; a second undo takes the first back.

    Raises:
        RolloutError: a rollout is under way, or nothing was ever promoted.
    """
    if state.status in UNDER_WAY:
        raise RolloutError(f"a rollout of {state.candidate} is {state.status}: abort it instead")
    if state.previous is None:
        raise RolloutError(f"nothing to undo: no rollout of {state.task!r} was ever promoted")
    routing: dict[str, Any] = {
        "stable": state.previous,
        "previous": state.stable,
        "candidate": None,
        "weight_bp": 0,
        "mirror_bp": 0,
    }
    return _next(state, now, event_id, "undo", actor, why, status="idle", stage="", stage_started_at=now, **routing)


def supersede(state: Rollout, by: str, now: datetime, event_id: str) -> Rollout:
    """End a rollout that has served nobody yet, because a newer adapter is there.

    Raises:
        RolloutError: it is not running, or users already see its candidate.
    """
    if not can_supersede(state):
        raise RolloutError(f"the rollout of {state.candidate} is {state.status} in {state.stage!r}: {by} waits")
    why = f"{by} is newer, and {state.candidate} has served nobody yet"
    return _next(state, now, event_id, "supersede", CONTROLLER, why, status="superseded", weight_bp=0, mirror_bp=0)


def refuse(task: str, state: Rollout | None, now: datetime, event_id: str, actor: str, why: str) -> Rollout:
    """The same routing table with the reason why an instruction was not followed, for the audit log."""
    if state is not None:
        return _next(state, now, event_id, "refuse", actor, why)
    return Rollout(
        id=event_id,
        at=now,
        task=task,
        rollout_id=event_id,
        version=1,
        status="idle",
        stage="",
        stage_started_at=now,
        stable=BASE,
        action="refuse",
        actor=actor,
        reason=why,
    )


def can_supersede(state: Rollout) -> bool:
    """Whether a running rollout has given its candidate no user yet."""
    return state.status == "running" and state.weight_bp == 0


def next_candidate(task: str, adapters: Iterable[Adapter], state: Rollout | None) -> Adapter | None:
    """The newest registered adapter that waits for a rollout, or None.

    Only an adapter numbered above all that the routing table names, and registered after its
    rollout began, waits: what was aborted, superseded or undone never comes back by itself.
    """
    waiting = [one for one in adapters if one.task == task and one.status == "registered" and one.answers]
    newest = max(waiting, key=lambda adapter: number(adapter.name), default=None)
    if newest is None or state is None or _never_rolled_out(state):
        return newest
    named = (state.stable, state.candidate, state.previous)
    above = number(newest.name) > max(number(name) for name in named if name)
    began_ms = uuid.UUID(state.rollout_id).int >> 80  # a UUIDv7 begins with its time
    later = newest.at.timestamp() * 1000 >= began_ms
    return newest if above and later else None


def number(name: str) -> int:
    """N of ``task@vN-sha8``; 0 for the base model."""
    match = ADAPTER_NAME.match(name)
    return int(match["number"]) if match else 0


def _never_rolled_out(state: Rollout) -> bool:
    return state.status == "idle" and state.stable == BASE and state.previous is None


def _advanced(
    state: Rollout,
    policy: RolloutPolicy,
    now: datetime,
    event_id: str,
    actor: str,
    why: str,
    gates: list[GateResult],
) -> Rollout:
    names = [stage.name for stage in policy.stages]
    if state.stage not in names[:-1]:
        raise RolloutError(f"stage {state.stage!r} has no next one in the policy's {names}: promote --full, or abort")
    stage = policy.stages[names.index(state.stage) + 1]
    return _next(
        state,
        now,
        event_id,
        "advance",
        actor,
        why,
        gates,
        status="running",
        stage=stage.name,
        stage_started_at=now,
        weight_bp=stage.weight_bp,
        mirror_bp=stage.mirror_bp,
    )


def _promoted(state: Rollout, now: datetime, event_id: str, actor: str, why: str, gates: list[GateResult]) -> Rollout:
    if state.candidate is None:
        raise RolloutError(f"the rollout of {state.task!r} has no candidate to promote")
    routing: dict[str, Any] = {"stable": state.candidate, "previous": state.stable, "weight_bp": 0, "mirror_bp": 0}
    return _next(state, now, event_id, "promote", actor, why, gates, status="promoted", **routing)


def _next(
    state: Rollout,
    now: datetime,
    event_id: str,
    action: RolloutAction,
    actor: str,
    why: str,
    gates: list[GateResult] | None = None,
    **changes: Any,
) -> Rollout:
    """The state's successor: one version up, with who did what and why."""
    audit = {"id": event_id, "at": now, "action": action, "actor": actor, "reason": why, "gates": gates or []}
    return state.model_copy(update=audit | {"version": state.version + 1} | changes)

"""The rollout's transitions: one routing table and what happened give the next table. Pure.

A rollout goes through its policy's stages under one salt, so that the keys that got the candidate
at 5% get it at 20% too. What its gates showed is carried from stage to stage, or not, as each stage says.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ratchet.schemas.errors import RolloutError
from ratchet.schemas.ids import ADAPTER_NAME, BASE
from ratchet.schemas.rollout_events import GateResult, Rollout, Span
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.rules.rollouts.best_arm import even
from ratchet.services.rules.rollouts.deciding import CONTROLLER, Decision, stage_of
from ratchet.services.rules.rollouts.tables import successor
from ratchet.services.rules.rollouts.waiting import UNDER_WAY, can_supersede

FULL = 10_000
MOST_BLOCKED = 50
"""Dataset versions remembered as aborted; older ones are far below what is new."""


def apply(
    state: Rollout,
    decision: Decision,
    policy: RolloutPolicy,
    now: datetime,
    event_id: str,
    actor: str = CONTROLLER,
    dataset: str | None = None,
) -> Rollout:
    """The next routing table after a decision; the same one after ``wait``.

    Args:
        state: the table in force.
        decision: what was decided on it.
        policy: the task's stages.
        now: the present instant.
        event_id: the new table's id.
        actor: who decided.
        dataset: the version that the candidate was trained on: after an abort it is not tried again without a person.

    Raises:
        RolloutError: the state does not allow the decision.
    """
    gates = list(decision.gates)
    match decision.action:
        case "wait":
            return state
        case "allocate":
            return successor(state, now, event_id, "allocate", actor, decision.reason, arms=dict(decision.shares))
        case "choose":
            # what chose it is no evidence for it: its stage begins anew
            others = [*state.passed_over, *(name for name in state.arms if name != decision.best)]
            alone: dict[str, Any] = {"candidate": decision.best, "arms": {}, "stage_started_at": now}
            alone |= {"passed_over": others}
            return successor(state, now, event_id, "choose", actor, decision.reason, **alone)
        case "prove":
            proved = list(decision.proved)
            return successor(state, now, event_id, "prove", actor, decision.reason, gates, proved=proved)
        case "advance":
            return _advanced(state, policy, now, event_id, actor, decision.reason, gates, decision.proved)
        case "promote":
            return _promoted(state, now, event_id, actor, decision.reason, gates)
        case "abort":
            return abort(state, now, event_id, actor, decision.reason, gates, dataset)
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
    dataset: str | None = None,
    others: Sequence[str] = (),
) -> Rollout:
    """Start a rollout of ``candidate`` against what is stable now (the base model at first).

    With ``others`` they are compared with each other first, in a stage that no user sees. Who starts one of a
    blocked ``dataset`` takes the block off: the controller never does.

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
        arms=even([candidate, *others]) if others else {},
        salt=rollout_id,
        action="start",
        actor=actor,
        reason=reason or f"{candidate} was registered",
        blocked=[version for version in state.blocked if version != dataset] if state else [],
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
    return successor(state, now, event_id, "pause", actor, why, gates, status="paused", paused_by=actor)


def resume(state: Rollout, policy: RolloutPolicy, now: datetime, event_id: str, actor: str, why: str) -> Rollout:
    """Go on with a paused rollout; its stage starts again, clock and evidence, and nothing is carried into it.

    What was proved stays so: a person who goes on does not ask the same question twice.

    Raises:
        RolloutError: no rollout is paused, or the policy has its stage no more.
    """
    if state.status != "paused":
        raise RolloutError(f"nothing to resume: the last rollout of {state.task!r} is {state.status}")
    if stage_of(policy, state.stage) is None:
        raise RolloutError(f"the policy has no stage {state.stage!r} any more: abort, or promote --full")
    changes: dict[str, Any] = {"status": "running", "stage_started_at": now, "carried": []}
    return successor(state, now, event_id, "resume", actor, why, **changes)


def abort(
    state: Rollout,
    now: datetime,
    event_id: str,
    actor: str,
    why: str,
    gates: list[GateResult] | None = None,
    dataset: str | None = None,
) -> Rollout:
    """Send everything back to the stable adapter at once, and block the dataset that the candidate came from.

    Raises:
        RolloutError: no rollout is under way.
    """
    if state.status not in UNDER_WAY:
        raise RolloutError(f"nothing to abort: the last rollout of {state.task!r} is {state.status}")
    blocked = [*(version for version in state.blocked if version != dataset), *([dataset] if dataset else [])]
    ended: dict[str, Any] = {"status": "aborted", "weight_bp": 0, "mirror_bp": 0, "blocked": blocked[-MOST_BLOCKED:]}
    return successor(state, now, event_id, "abort", actor, why, gates, **ended)


def promote(
    state: Rollout, policy: RolloutPolicy, now: datetime, event_id: str, actor: str, why: str, full: bool
) -> Rollout:
    """A person's word in place of the gates: to the next stage, or with ``full`` to the end.

    What was seen before is not held against that word: the next stage carries nothing, and only new harm aborts.

    Raises:
        RolloutError: no rollout is under way, or the policy has its stage no more.
    """
    if state.status not in UNDER_WAY:
        raise RolloutError(f"nothing to promote: the last rollout of {state.task!r} is {state.status}")
    if state.arms:
        raise RolloutError(f"{len(state.arms)} candidates are compared: abort, then start the one that you want")
    if full or state.stage == policy.stages[-1].name:
        return _promoted(state, now, event_id, actor, why, [])
    return _advanced(state, policy, now, event_id, actor, why, [], state.proved).model_copy(update={"carried": []})


def undo(state: Rollout, now: datetime, event_id: str, actor: str, why: str, to: str | None = None) -> Rollout:
    """Serve the previous stable adapter again, or any other (``to``); a second undo takes the first back.

    Raises:
        RolloutError: a rollout is under way, nothing was ever promoted, or ``to`` is stable already or another task's.
    """
    if state.status in UNDER_WAY:
        raise RolloutError(f"a rollout of {state.candidate} is {state.status}: abort it instead")
    back = to or state.previous
    if back is None:
        raise RolloutError(f"nothing to undo: no rollout of {state.task!r} was ever promoted")
    named = ADAPTER_NAME.match(back)
    if back != BASE and (named is None or named["task"] != state.task):
        raise RolloutError(f"{back} is no adapter of task {state.task!r}; allowed: one of its own, or 'base'")
    if back == state.stable:
        raise RolloutError(f"{back} is the stable adapter of {state.task!r} already")
    routing: dict[str, Any] = {
        "stable": back,
        "previous": state.stable,
        "candidate": None,
        "weight_bp": 0,
        "mirror_bp": 0,
    }
    return successor(state, now, event_id, "undo", actor, why, status="idle", stage="", stage_started_at=now, **routing)


def join(state: Rollout, candidate: str, now: datetime, event_id: str) -> Rollout:
    """Compare one more candidate with those that nobody has seen yet; the copies are shared out evenly again.

    Raises:
        RolloutError: it is not running, or users already see its candidate.
    """
    if not can_supersede(state) or state.candidate is None:
        raise RolloutError(f"the rollout of {state.candidate} is {state.status} in {state.stage!r}: {candidate} waits")
    arms = even([*(state.arms or [state.candidate]), candidate])
    why = f"{candidate} is newer, and is compared with {', '.join(list(arms)[:-1])}"
    return successor(state, now, event_id, "join", CONTROLLER, why, arms=arms, proved=[])


def supersede(state: Rollout, by: str, now: datetime, event_id: str) -> Rollout:
    """End a rollout that has served nobody yet, because a newer adapter is there.

    Raises:
        RolloutError: it is not running, or users already see its candidate.
    """
    if not can_supersede(state):
        raise RolloutError(f"the rollout of {state.candidate} is {state.status} in {state.stage!r}: {by} waits")
    why = f"{by} is newer, and {state.candidate} has served nobody yet"
    return successor(state, now, event_id, "supersede", CONTROLLER, why, status="superseded", weight_bp=0, mirror_bp=0)


def _advanced(
    state: Rollout,
    policy: RolloutPolicy,
    now: datetime,
    event_id: str,
    actor: str,
    why: str,
    gates: list[GateResult],
    proved: Sequence[str],
) -> Rollout:
    names = [stage.name for stage in policy.stages]
    if state.stage not in names[:-1]:
        raise RolloutError(f"stage {state.stage!r} has no next one in the policy's {names}: promote --full, or abort")
    stage = policy.stages[names.index(state.stage) + 1]
    # a shadow stage compares other things (nobody saw the answers), so nothing of it counts for users
    carries = stage.evidence == "carry" and state.weight_bp > 0
    return successor(
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
        proved=list(proved) if carries else [],
        carried=[*state.carried, _span(state, now)] if carries and state.weight_bp < FULL else [],
    )


def _span(state: Rollout, until: datetime) -> Span:
    return Span(stage=state.stage, weight_bp=state.weight_bp, since=state.stage_started_at, until=until)


def _promoted(state: Rollout, now: datetime, event_id: str, actor: str, why: str, gates: list[GateResult]) -> Rollout:
    if state.candidate is None:
        raise RolloutError(f"the rollout of {state.task!r} has no candidate to promote")
    routing: dict[str, Any] = {"stable": state.candidate, "previous": state.stable, "weight_bp": 0, "mirror_bp": 0}
    return successor(state, now, event_id, "promote", actor, why, gates, status="promoted", **routing)

"""What a rollout does next: evidence to decision. Pure.

It advances when every gate is proved, the stage's minimum duration is over and every gateway follows its table;
it aborts when a critical gate fails, failures come in a burst, or an alert pages about the candidate. It never
overrides a person: what a person paused changes by a person's verb alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ratchet.schemas.rollout_events import GateResult, Rollout
from ratchet.schemas.rollout_policy import LOWER_IS_BETTER, Gate, OnTimeout, RolloutPolicy, Stage
from ratchet.services.rules.rollouts.best_arm import choose
from ratchet.services.rules.rollouts.evidence import StageEvidence
from ratchet.services.rules.rollouts.gates import evaluate, used_up
from ratchet.services.rules.rollouts.guards import burst_reason, mismatch_reason

CONTROLLER = "controller"
Judged = Sequence[tuple[Gate, GateResult]]


@dataclass(frozen=True)
class Decision:
    """What to do next, why, and the gates' figures it rests on.

    ``prove``: a gate passed that had not before, which is written down, since its sequential test ends there.
    ``proved`` are the keys of all gates that have passed by now. ``allocate`` and ``choose`` are of several
    candidates in a first stage: ``shares`` of the copies for each, or the ``best`` for all.
    """

    action: Literal["allocate", "choose", "prove", "advance", "promote", "abort", "pause", "wait"]
    reason: str
    gates: tuple[GateResult, ...] = ()
    proved: tuple[str, ...] = ()
    shares: Mapping[str, int] = field(default_factory=dict)
    best: str | None = None


def stage_of(policy: RolloutPolicy, name: str) -> Stage | None:
    """The policy's stage of this name; None when the policy was changed and has it no more."""
    return next((stage for stage in policy.stages if stage.name == name), None)


def gates_of(policy: RolloutPolicy, stage: Stage) -> list[Gate]:
    """The gates that a stage asks."""
    return policy.gates if stage.gates is None else stage.gates


def key(gate: Gate) -> str:
    """What a routing table calls a gate that passed: another margin or alpha is another question."""
    return f"{gate.metric} {gate.margin:g} {gate.margin_kind} {gate.alpha:g}"


def judge_stage(stage: Stage, evidence: StageEvidence, policy: RolloutPolicy) -> list[tuple[Gate, GateResult]]:
    """Evaluate the gates of a stage, less those that the stage cannot observe."""
    asked = [gate for gate in gates_of(policy, stage) if gate.metric not in evidence.unobservable]
    share = sum(gate.critical and not gate.dry_run for gate in asked)
    return [(gate, evaluate(gate, evidence.by_gate.get(gate.metric), share)) for gate in asked]


def decide(state: Rollout, evidence: StageEvidence, policy: RolloutPolicy, now: datetime) -> Decision:
    """Decide what a rollout does next.

    Args:
        state: the routing table in force.
        evidence: what this stage, and what was carried into it, has shown so far.
        policy: the task's stages and gates.
        now: the present instant; one before the stage began is no time passed.

    Returns:
        ``abort`` on proved harm; else, while it runs, ``advance`` (``promote`` after the last stage) when every
        gate is proved, ``prove`` when one more is, ``pause`` or ``abort`` when time, observations or a fair split
        ran out, and ``wait`` otherwise. One that the controller paused can still be aborted; one that a person paused
        always waits.
    """
    held = state.status == "paused" and state.paused_by == CONTROLLER
    if state.status != "running" and not held:
        return Decision("wait", f"the rollout is {state.status}: only a person changes it")
    stage = stage_of(policy, state.stage)
    if stage is None:
        known = ", ".join(repr(one.name) for one in policy.stages)
        return _unless_held(held, Decision("pause", f"the policy has no stage {state.stage!r} any more, only {known}"))
    if state.arms and not held:
        return _among(state, stage, evidence, policy, now)
    judged = judge_stage(stage, evidence, policy)
    results = tuple(result for _, result in judged)
    asked = [(gate, result) for gate, result in judged if not gate.dry_run]
    passed = [key(gate) for gate, result in judged if result.verdict == "pass" and key(gate) not in state.proved]
    proved = (*state.proved, *passed)
    if harm := _harm(asked, evidence, policy):
        return Decision("abort", harm, results, proved)
    if hold := _hold(asked, evidence, policy, stage):
        return _unless_held(held, Decision("pause", hold, results, proved))
    elapsed = (now - state.stage_started_at).total_seconds()
    undecided = [(gate, result) for gate, result in asked if key(gate) not in proved]
    missing = _missing(stage, evidence, policy, judged, [result.reason for _, result in undecided])
    if not missing and elapsed >= stage.min_duration_s * policy.time_scale and not held:
        last = stage.name == policy.stages[-1].name
        reason = f"all {len(asked)} gates passed after {elapsed:.0f} s in {stage.name!r}"
        return Decision("promote" if last else "advance", reason, results, proved)
    if out := _out_of(undecided, bool(missing), stage, policy, elapsed):
        action, why = out
        return _unless_held(held, Decision("abort" if action == "rollback" else "pause", why, results, proved))
    if passed and not held:
        names = ", ".join(one.split()[0] for one in passed)
        return Decision("prove", f"{names}: within the margin", results, proved)
    least = stage.min_duration_s * policy.time_scale
    reason = "; ".join(missing) or f"{elapsed:.0f} of at least {least:.0f} s in {stage.name!r}"
    return Decision("wait", reason, results, tuple(state.proved))


def _among(state: Rollout, stage: Stage, evidence: StageEvidence, policy: RolloutPolicy, now: datetime) -> Decision:
    """Of several candidates: the best, where it is shown; else new shares now and then, and no gate is asked."""
    ask = policy.best_arm
    seen = {name: evidence.arms.get(name) for name in state.arms}
    choice = choose(seen, ask, lower_is_better=ask.metric in LOWER_IS_BETTER)
    if choice.best:
        return Decision("choose", choice.reason, best=choice.best)
    most = stage.max_wait_s * policy.time_scale
    if (now - state.stage_started_at).total_seconds() >= most:
        why = f"no best of {len(seen)} candidates within {most:.0f} s: {choice.reason}"
        return Decision("abort" if stage.on_timeout == "rollback" else "pause", why)
    since = (now - state.at).total_seconds()
    shares = {name: choice.shares.get(name, 0) for name in state.arms}
    if shares != state.arms and since >= ask.allocate_every_s * policy.time_scale:
        return Decision("allocate", choice.reason, shares=shares)
    return Decision("wait", choice.reason)


def _unless_held(held: bool, decision: Decision) -> Decision:
    return Decision("wait", decision.reason, decision.gates) if held and decision.action == "pause" else decision


def _harm(asked: Judged, evidence: StageEvidence, policy: RolloutPolicy) -> str | None:
    """Why the candidate must go, the surest first; None where nothing shows harm."""
    failed = [result.reason for gate, result in asked if gate.critical and result.verdict == "fail"]
    burst = burst_reason(evidence.burst, policy.burst) if evidence.burst else None
    page = evidence.page if policy.abort_on_page else None
    return "; ".join([one for one in (burst, page, *failed) if one]) or None


def _hold(asked: Judged, evidence: StageEvidence, policy: RolloutPolicy, stage: Stage) -> str | None:
    """Why a person must look before anything goes on; None where nobody must."""
    mismatch = mismatch_reason(evidence.split, policy.srm_alpha) if evidence.split else None
    failed = [result.reason for gate, result in asked if not gate.critical and result.verdict == "fail"]
    return "; ".join([one for one in (mismatch, *failed) if one]) or None


def _missing(
    stage: Stage, evidence: StageEvidence, policy: RolloutPolicy, judged: Judged, undecided: list[str]
) -> list[str]:
    """What stands between this stage and the next, but for its minimum duration."""
    missing = list(undecided)
    if gates_of(policy, stage) and not judged:
        missing.append(f"stage {stage.name!r} can observe none of its gates; give it gates that it can, or []")
    if evidence.requests < stage.min_n:
        missing.append(f"{evidence.requests} of at least {stage.min_n} requests of the candidate in {stage.name!r}")
    if evidence.waiting_for:
        missing.append(f"not acknowledged yet by {', '.join(evidence.waiting_for)}")
    return missing


def _out_of(
    undecided: Judged, missing: bool, stage: Stage, policy: RolloutPolicy, elapsed: float
) -> tuple[OnTimeout, str] | None:
    """What an undecided stage leads to once observations or time are used up; rollback if any gate asks for it."""
    found: list[tuple[OnTimeout, str]] = []
    for gate, result in undecided:
        wait_s = None if gate.max_wait_s is None else gate.max_wait_s * policy.time_scale
        what = gate.on_timeout or stage.on_timeout
        if used_up(gate, result):
            found.append((what, f"no decision within {gate.max_n} observations: {result.reason}"))
        elif wait_s is not None and elapsed >= wait_s:
            found.append((what, f"no decision within {wait_s:.0f} s: {result.reason}"))
    most = stage.max_wait_s * policy.time_scale
    if missing and elapsed >= most:
        reasons = "; ".join(result.reason for _, result in undecided) or "what it waits for did not come"
        found.append((stage.on_timeout, f"no decision within {most:.0f} s: {reasons}"))
    if not found:
        return None
    action: OnTimeout = "rollback" if any(what == "rollback" for what, _ in found) else "pause"
    return action, "; ".join(why for _, why in found)

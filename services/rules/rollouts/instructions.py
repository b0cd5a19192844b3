"""A person's instruction to a rollout: one verb, one transition, or a refusal that says why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.rules.rollouts import transitions as rules
from ratchet.services.rules.rollouts.tables import refuse


def follow(
    asked: Operator,
    state: Rollout | None,
    policy: RolloutPolicy | None,
    adapters: Mapping[str, Adapter],
    now: datetime,
    new_id: Callable[[], str],
) -> Rollout:
    """The routing table after an instruction; its ``operator_seen`` names the instruction.

    An instruction that the state does not allow gives the same table with action ``refuse`` and
    the reason, so that the person who waits for an answer gets one and the audit log has it.

    Args:
        asked: what the person wants.
        state: the table in force; None before the first rollout.
        policy: the task's stages; None when no such task is declared.
        adapters: the registry, by name.
        now: the present instant.
        new_id: makes event ids.
    """
    try:
        table = _transition(asked, state, policy, adapters, now, new_id)
    except RolloutError as error:
        table = refuse(asked.task, state, now, new_id(), asked.who, str(error))
    return table.model_copy(update={"operator_seen": asked.id})


def refused(asked: Operator, state: Rollout | None, now: datetime, event_id: str, why: str) -> Rollout:
    """The refusal of an instruction for a reason outside these rules (say, no replica could load it)."""
    table = refuse(asked.task, state, now, event_id, asked.who, why)
    return table.model_copy(update={"operator_seen": asked.id})


def _transition(
    asked: Operator,
    state: Rollout | None,
    policy: RolloutPolicy | None,
    adapters: Mapping[str, Adapter],
    now: datetime,
    new_id: Callable[[], str],
) -> Rollout:
    task, who, why = asked.task, asked.who, asked.why or f"{asked.verb} by {asked.who}"
    if asked.verb == "start":
        return _start(asked, asked.adapter, state, _declared(task, policy), adapters, now, new_id, why)
    if state is None:
        raise RolloutError(f"task {task!r} has had no rollout yet")
    match asked.verb:
        case "promote":
            return rules.promote(state, _declared(task, policy), now, new_id(), who, why, asked.full)
        case "pause":
            return rules.pause(state, now, new_id(), who, why)
        case "resume":
            return rules.resume(state, _declared(task, policy), now, new_id(), who, why)
        case "abort":
            candidate = adapters.get(state.candidate or "")
            return rules.abort(state, now, new_id(), who, why, dataset=candidate.dataset if candidate else None)
        case "undo":
            return rules.undo(state, now, new_id(), who, why, asked.adapter)
        case "retry":
            if state.status not in ("aborted", "superseded"):
                raise RolloutError(f"nothing to retry: the last rollout of {task!r} is {state.status}")
            again = asked.adapter or state.candidate
            return _start(asked, again, state, _declared(task, policy), adapters, now, new_id, why)


def _start(
    asked: Operator,
    name: str | None,
    state: Rollout | None,
    policy: RolloutPolicy,
    adapters: Mapping[str, Adapter],
    now: datetime,
    new_id: Callable[[], str],
    why: str,
) -> Rollout:
    if name is None:
        raise RolloutError(f"{asked.verb} needs an adapter's name")
    adapter = adapters.get(name)
    if adapter is None:
        raise RolloutError(f"{name} is not in the registry")
    if adapter.status != "registered":
        raise RolloutError(f"{adapter.name} is {adapter.status}: {adapter.reason or 'no reason given'}")
    if not adapter.answers:
        raise RolloutError(f"{adapter.name} is a reward model: it says how good answers are, and gives none")
    ids = new_id(), new_id()
    return rules.begin(asked.task, adapter.name, policy, state, now, *ids, asked.who, why, adapter.dataset)


def _declared(task: str, policy: RolloutPolicy | None) -> RolloutPolicy:
    if policy is None:
        raise RolloutError(f"no task {task!r} is declared in ratchet.toml")
    return policy

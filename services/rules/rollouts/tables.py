"""Routing tables as records: a table's successor, and those that change nothing but the record. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ratchet.schemas.ids import BASE
from ratchet.schemas.rollout_events import GateResult, Rollout, RolloutAction
from ratchet.services.rules.rollouts.deciding import CONTROLLER
from ratchet.services.rules.rollouts.waiting import UNDER_WAY


def successor(
    state: Rollout,
    now: datetime,
    event_id: str,
    action: RolloutAction,
    actor: str,
    why: str,
    gates: list[GateResult] | None = None,
    **changes: Any,
) -> Rollout:
    """The table after this one: one version up, with who did what and why, and the changes.

    Candidates are compared while a rollout is under way; who holds it is kept where nothing changes but the record.
    """
    audit = {"id": event_id, "at": now, "action": action, "actor": actor, "reason": why, "gates": gates or []}
    held = state.paused_by if action in ("refuse", "confirm") else None
    ended: dict[str, Any] = {} if changes.get("status", state.status) in UNDER_WAY else {"arms": {}}
    return state.model_copy(update=audit | {"version": state.version + 1, "paused_by": held} | changes | ended)


def confirm(state: Rollout, now: datetime, event_id: str, why: str) -> Rollout:
    """The same routing table under a new version, where the topic held another one of the same version."""
    return successor(state, now, event_id, "confirm", CONTROLLER, why)


def refuse(task: str, state: Rollout | None, now: datetime, event_id: str, actor: str, why: str) -> Rollout:
    """The same routing table with the reason why an instruction was not followed, for the audit log."""
    if state is not None:
        return successor(state, now, event_id, "refuse", actor, why)
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

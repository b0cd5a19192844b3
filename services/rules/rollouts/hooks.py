"""Hooks of a rollout: who hears of which transition, what they are sent, and what an answer means. Pure.

A hook can hold up what moves forward by itself, and nothing else: what sends users back to a proved adapter, and
what a person asked for, is told to it and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from ratchet.infra.sinks.http import Answer, plain
from ratchet.schemas.hooking import HookSettings
from ratchet.schemas.ids import derived_id, unix_ms
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.rollouts.deciding import CONTROLLER

Moment = Literal["before", "after"]
VETOABLE = frozenset({"start", "advance", "promote"})
TRANSITIONS = VETOABLE | {"supersede", "pause", "resume", "abort", "undo"}
"""What changes who is served or what is decided; other tables only record something."""
NEWS_S = 86_400.0
"""A transition that is older when it comes is history, not news: it is told to nobody."""
_NO = frozenset({403, 409})


@dataclass(frozen=True)
class Veto:
    """Why a transition waits; ``record``: the audit log does not have it yet. ``id`` is the question's."""

    hook: str
    reason: str
    record: bool
    id: str

    @property
    def actor(self) -> str:
        """Who refused, as the audit log names it."""
        return actor(self.hook)


def actor(hook: str) -> str:
    """A hook as the audit log names it."""
    return f"hook {hook}"


def concerned(hooks: Mapping[str, HookSettings], moment: Moment, table: Rollout) -> dict[str, HookSettings]:
    """The hooks that hear of a table at this moment."""
    if moment == "before" and table.action not in TRANSITIONS:
        return {}
    return {
        name: hook
        for name, hook in hooks.items()
        if hook.when in (moment, "both")
        and table.action in hook.actions
        and (not hook.tasks or table.task in hook.tasks)
    }


def may_veto(table: Rollout) -> bool:
    """Whether a transition may be held up: the controller's own, and forward."""
    return table.action in VETOABLE and table.actor == CONTROLLER


def is_news(table: Rollout, now: datetime) -> bool:
    """Whether a transition is young enough to be told."""
    return (now - table.at).total_seconds() <= NEWS_S


def question_id(hook: str, state: Rollout | None, table: Rollout) -> str:
    """The id of one hook's question about one transition: the same however often it is asked, and by whom.

    A table that was not published has a new id and a new rollout's id each time it is made, so neither is in it; and
    a task whose first start was refused has a table, yet no rollout before this one (it would have a salt).
    """
    last = state.rollout_id if state and state.salt else ""
    parts = (last, table.task, table.action, table.stage, table.candidate or "", table.stable)
    return derived_id(unix_ms(last) if last else 0, "hook", hook, *parts)


def message(moment: Moment, id: str, state: Rollout | None, table: Rollout) -> bytes:
    """What a hook is sent: ``{type, timestamp, data}`` with the transition, its reason and the gates' figures.

    Args:
        moment: before it or after it.
        id: by which a receiver drops what it has seen.
        state: the table before; None where it is not known, or there was none.
        table: the table that the transition leads to.
    """
    data = {
        "id": id,
        "task": table.task,
        "rollout_id": table.rollout_id,
        "version": table.version,
        "action": table.action,
        "who": table.actor,
        "reason": table.reason,
        "from": _place(state) if state else None,
        "to": _place(table),
        "stable": table.stable,
        "candidate": table.candidate,
        "gates": [gate.model_dump(mode="json") for gate in table.gates],
    }
    if moment == "before":
        data["may_veto"] = may_veto(table)
    at = table.at.isoformat().replace("+00:00", "Z")
    return orjson.dumps({"type": f"rollout.{moment}", "timestamp": at, "data": data})


def _place(table: Rollout) -> dict[str, Any]:
    return {name: getattr(table, name) for name in ("status", "stage", "weight_bp", "mirror_bp", "stable", "candidate")}


def objection(hook: HookSettings, answer: Answer | str) -> str | None:
    """What an answer to `before` means: None lets the transition go, a sentence holds it up.

    Args:
        hook: whose.
        answer: what came, or why nothing did.
    """
    if isinstance(answer, Answer):
        if 200 <= answer.status < 300:
            return None
        if answer.status in _NO:
            return _said(answer.body) or f"refused with status {answer.status}, without a reason"
        problem = plain(f"answered {answer.status} {answer.body.decode(errors='replace')}").strip()
    else:
        problem = answer
    return None if hook.on_error == "allow" else f"{problem}: without its yes nothing moves (on_error)"


def _said(body: bytes) -> str:
    """The reason in an answer's body: ``{"reason": …}``, or the text itself."""
    text = body.decode(errors="replace")
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return plain(text)
    return plain(str(found["reason"])) if isinstance(found, dict) and found.get("reason") else plain(text)


def recorded(hook: str, state: Rollout | None, table: Rollout) -> bool:
    """Whether the table in force is already this hook's veto of the same transition."""
    return (
        state is not None
        and state.action == "refuse"
        and state.actor == actor(hook)
        and state.reason.startswith(what(table))
    )


def what(table: Rollout) -> str:
    """A transition in a few words, as a veto's reason begins."""
    match table.action:
        case "start":
            return f"start of {table.candidate}"
        case "promote":
            return f"promotion of {table.candidate}"
        case _:
            return f"{table.action} of {table.candidate} to {table.stage!r}"

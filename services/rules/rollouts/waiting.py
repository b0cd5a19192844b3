"""Which adapter's rollout is next: one at a time a task, the newest first, and nothing that was sent back. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import ADAPTER_NAME, BASE
from ratchet.schemas.rollout_events import Rollout

UNDER_WAY = ("running", "paused")


def can_supersede(state: Rollout) -> bool:
    """Whether a running rollout has given its candidate no user yet."""
    return state.status == "running" and state.weight_bp == 0


def queue(task: str, adapters: Iterable[Adapter], state: Rollout | None) -> list[Adapter]:
    """Every registered adapter that waits for a rollout, the newest first.

    Only an adapter numbered above all that the routing table names, and registered after its
    rollout began, waits: what was aborted, superseded, undone or passed over never comes back by itself, nor does
    another adapter of a dataset version whose adapter was aborted.
    """
    blocked = state.blocked if state else []
    waiting = [
        one
        for one in adapters
        if one.task == task and one.status == "registered" and one.answers and one.dataset not in blocked
    ]
    newest = sorted(waiting, key=lambda adapter: number(adapter.name), reverse=True)
    if state is None or _never_rolled_out(state):
        return newest
    named = (state.stable, state.candidate, state.previous, *state.arms, *state.passed_over)
    above = max(number(name) for name in named if name)
    began_ms = uuid.UUID(state.rollout_id).int >> 80  # a UUIDv7 begins with its time
    return [one for one in newest if number(one.name) > above and one.at.timestamp() * 1000 >= began_ms]


def number(name: str) -> int:
    """N of ``task@vN-sha8``; 0 for the base model."""
    match = ADAPTER_NAME.match(name)
    return int(match["number"]) if match else 0


def _never_rolled_out(state: Rollout) -> bool:
    return state.status == "idle" and state.stable == BASE and state.previous is None

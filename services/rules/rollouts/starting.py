"""What begins now: the newest adapter that waits, alone or beside others that nobody has seen yet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from ratchet.schemas.events import Adapter
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.rules.rollouts.transitions import begin, join, supersede
from ratchet.services.rules.rollouts.waiting import UNDER_WAY, can_supersede, queue


def starting(
    task: str,
    adapters: Iterable[Adapter],
    resident: Collection[str],
    state: Rollout | None,
    policy: RolloutPolicy,
    now: datetime,
    new_id: Callable[[], str],
) -> list[Rollout]:
    """The routing tables that begin a rollout of what waits; none while another is in front of users.

    Args:
        task: whose adapters.
        adapters: the registry.
        resident: names that every replica of theirs has confirmed; nothing else begins.
        state: the table in force; None before the first rollout.
        policy: the stages, and how many candidates are compared in the first.
        now: the present instant.
        new_id: makes event ids.
    """
    waiting = queue(task, adapters, state)[: policy.best_arm.candidates]
    if not waiting or waiting[0].name not in resident:
        return []
    names = [one.name for one in waiting if one.name in resident]
    if state is None or state.status not in UNDER_WAY:
        return [begin(task, names[0], policy, state, now, new_id(), new_id(), others=names[1:])]
    if not can_supersede(state):
        return []
    room = policy.best_arm.candidates - max(len(state.arms), 1)
    if room >= len(names):
        tables = [state]
        for name in reversed(names):
            tables.append(join(tables[-1], name, now, new_id()))
        return tables[1:]
    ended = supersede(state, names[0], now, new_id())
    return [ended, begin(task, names[0], policy, ended, now, new_id(), new_id(), others=names[1:])]

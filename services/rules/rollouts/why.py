"""Why an adapter serves: from a task's routing tables to what was in force and the decisions behind it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.rollouts.waiting import UNDER_WAY

FULL = 10_000


@dataclass(frozen=True)
class Why:
    """What was served at an instant, and why.

    ``table`` was in force; ``decided`` is the table by which the routing became what it was. ``rollout`` are the
    tables of the rollout that was under way, and ``became_stable`` those by which the stable adapter became so (an
    undo, and the whole rollout that once promoted it; none of the base model that always was), both the latest first.
    """

    table: Rollout
    decided: Rollout
    rollout: list[Rollout]
    became_stable: list[Rollout]

    @property
    def shares(self) -> dict[str, float]:
        """Each adapter's share of users."""
        table = self.table
        if table.candidate is None or table.status not in UNDER_WAY or table.weight_bp == 0:
            return {table.stable: 1.0}
        candidate = table.weight_bp / FULL
        stable = {table.stable: 1 - candidate} if candidate < 1 else {}
        return stable | {table.candidate: candidate}


def explain(tables: Sequence[Rollout]) -> Why | None:
    """Explain the last of a task's tables.

    Args:
        tables: all of them up to an instant, oldest first.

    Returns:
        None where there is none: everything went to the base model.
    """
    if not tables:
        return None
    table = tables[-1]
    under_way = table.status in UNDER_WAY
    rollout = [one for one in tables if one.rollout_id == table.rollout_id] if under_way else []
    adopted = _adoption(tables, table.stable)
    return Why(table, tables[_last_change(tables)], rollout[::-1], adopted)


def _routing(table: Rollout) -> tuple[object, ...]:
    candidate = table.candidate if table.status in UNDER_WAY else None
    return table.stable, candidate, table.weight_bp, table.mirror_bp, table.arms


def _last_change(tables: Sequence[Rollout]) -> int:
    """The position of the table by which routing became what the last one says."""
    position = len(tables) - 1
    while position and _routing(tables[position - 1]) == _routing(tables[-1]):
        position -= 1
    return position


def _adoption(tables: Sequence[Rollout], stable: str) -> list[Rollout]:
    """The tables by which an adapter became stable, the latest first: back to the rollout that promoted it."""
    found: list[Rollout] = []
    position = len(tables) - 1
    while position >= 0:
        while position >= 0 and tables[position].stable != stable:
            position -= 1
        while position > 0 and tables[position - 1].stable == stable:
            position -= 1
        if position <= 0:
            break  # it was so when the log begins
        became = tables[position]
        found.append(became)
        if became.action == "promote":
            earlier = [one for one in tables[:position] if one.rollout_id == became.rollout_id]
            return found + earlier[::-1]
        position -= 1
    return found

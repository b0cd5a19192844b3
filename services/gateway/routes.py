"""The routing tables as the compacted topic last told them: one a task, only ever replaced by a newer one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from ratchet.infra import clock
from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.placement import residents


class InForce(NamedTuple):
    """A table, and since when this gateway routes by it."""

    table: Rollout
    since: datetime


class RoutingTables:
    """Tables by task. Written by the tail's thread, read by the event loop (one dict assignment each: atomic)."""

    def __init__(self, now: Callable[[], datetime] = clock.now) -> None:
        """Start with no table: every task is served by the base model."""
        self._tables: dict[str, InForce] = {}
        self._now = now
        self._listeners: list[Callable[[Rollout], None]] = []
        self.adapters: frozenset[str] = frozenset()
        """Every adapter that some table may send a request to."""

    def listen(self, listener: Callable[[Rollout], None]) -> None:
        """Call ``listener`` with each table that takes effect, in the tail's thread, from then on."""
        self._listeners.append(listener)

    def apply(self, event: Event) -> None:
        """Take a table in if it is newer; operators' instructions on the same topic are not the gateway's."""
        if not isinstance(event, Rollout):
            return
        known = self._tables.get(event.task)
        if known is None or event.version > known.table.version:
            self._tables[event.task] = InForce(event, self._now())
            self.adapters = frozenset().union(*(residents(one.table) for one in self.in_force()))
            for listener in self._listeners:
                listener(event)

    def get(self, task: str) -> Rollout | None:
        """The task's table; None where nothing was ever rolled out."""
        found = self._tables.get(task)
        return found.table if found is not None else None

    def in_force(self) -> list[InForce]:
        """Every task's table."""
        return list(self._tables.values())

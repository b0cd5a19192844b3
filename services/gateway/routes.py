"""The routing tables as the compacted topic last told them: one a task, only ever replaced by a newer one."""

from __future__ import annotations

from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.placement import residents


class RoutingTables:
    """Tables by task. Written by the tail's thread, read by the event loop (one dict assignment each: atomic)."""

    def __init__(self) -> None:
        """Start with no table: every task is served by the base model."""
        self._tables: dict[str, Rollout] = {}
        self.adapters: frozenset[str] = frozenset()
        """Every adapter that some table may send a request to."""

    def apply(self, event: Event) -> None:
        """Take a table in if it is newer; operators' instructions on the same topic are not the gateway's."""
        if not isinstance(event, Rollout):
            return
        known = self._tables.get(event.task)
        if known is None or event.version > known.version:
            self._tables[event.task] = event
            self.adapters = frozenset().union(*map(residents, self._tables.values()))

    def get(self, task: str) -> Rollout | None:
        """The task's table; None where nothing was ever rolled out."""
        return self._tables.get(task)

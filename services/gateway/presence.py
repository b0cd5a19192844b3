"""What a gateway says of itself: which tables it routes by since when, and what it has at the model servers.

Said at once when a table takes effect, so that a rollback is known to be over; every few seconds, so that silence means
something; and once more when it leaves. A request that is being routed in that very instant is seen by the next word.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.services.gateway.routes import RoutingTables

EVERY_S = 5.0
_READY_S = 0.1
_REMEMBERED = timedelta(days=1)


class Traffic:
    """Requests at model servers by adapter, streams to their end and mirrored copies among them.

    Written by the event loop alone, without a lock, because every request passes here twice; any thread may read.
    """

    __slots__ = ("in_flight", "last")

    def __init__(self) -> None:
        """Start with none."""
        self.in_flight: dict[str, int] = {}
        self.last: dict[str, datetime] = {}
        """When a table last sent a request or a copy to each adapter."""

    def begin(self, adapter: str, at: datetime | None) -> None:
        """Note that a request is on its way to an adapter; ``at`` None: its client named it, and no table sent it."""
        self.in_flight[adapter] = self.in_flight.get(adapter, 0) + 1
        if at is not None:
            self.last[adapter] = at

    def end(self, adapter: str) -> None:
        """Note that it has its answer, or never will."""
        left = self.in_flight[adapter] - 1
        if left:
            self.in_flight[adapter] = left
        else:
            del self.in_flight[adapter]

    def forget(self, now: datetime) -> None:
        """Drop the adapters that were routed to for the last time long ago."""
        for adapter in [name for name, at in self.last.items() if now - at > _REMEMBERED]:
            del self.last[adapter]


class Presence:
    """Says how one gateway stands, in ``gateway.v1`` events."""

    def __init__(
        self,
        name: str,
        routes: RoutingTables,
        traffic: Traffic,
        emit: Callable[[Event], None],
        *,
        ready: Callable[[], bool],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        """Take the parts; says nothing yet.

        Args:
            name: what this process is called, unlike any other that is or was.
            routes: the tables in force; each that takes effect is said.
            traffic: what is at the model servers.
            emit: takes the events, from any thread.
            ready: whether the tables were read to their present end: what came before took effect for nobody.
            now: the wall clock.
            new_id: makes event ids.
        """
        self._name = name
        self._routes = routes
        self._traffic = traffic
        self._emit = emit
        self._ready = ready
        self._now = now
        self._new_id = new_id
        self._left = False
        self._lock = threading.Lock()  # the tail's thread and the event loop both speak
        routes.listen(self._acknowledge)

    def say(self, state: Literal["up", "left"] = "up") -> None:
        """Say how it stands now; nothing more after it left, and nothing before it knows its tables."""
        with self._lock:
            if self._left or not self._ready():
                return
            self._left = state == "left"
            tables = self._routes.in_force()
            self._emit(
                Gateway(
                    id=self._new_id(),
                    at=self._now(),
                    gateway=self._name,
                    state=state,
                    tables={one.table.task: one.table.version for one in tables},
                    since={one.table.task: one.since for one in tables},
                    in_flight=self._traffic.in_flight.copy(),
                    last_request=self._traffic.last.copy(),
                )
            )

    def _acknowledge(self, _table: Rollout) -> None:
        self.say()

    async def follow(self) -> None:
        """Say it every few seconds, for ever, as soon as the tables are known."""
        while True:
            self._traffic.forget(self._now())
            self.say()
            await asyncio.sleep(EVERY_S if self._ready() else _READY_S)

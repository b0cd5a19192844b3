"""Adapters that nothing routes to any more leave the replicas once nobody asks them: drained, then unloaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from datetime import datetime

from ratchet.schemas.errors import ModelError
from ratchet.schemas.ids import BASE
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.controller.flips import Flips
from ratchet.services.controller.residents import Replicas
from ratchet.services.rules.rollouts.acknowledging import left_over

log = logging.getLogger("ratchet.controller")


class Unloading:
    """Unloads what this controller's tables once routed to, and nothing else: who evaluates an adapter loads it too.

    Args:
        replicas: the vLLM servers.
        flips: what gateways acknowledge, and have in flight.
        grace_s: seconds that an adapter stays after it was wanted last.
    """

    def __init__(self, replicas: Replicas, flips: Flips, grace_s: float) -> None:
        self._replicas, self._flips, self._grace_s = replicas, flips, grace_s
        self._unwanted: dict[str, datetime] = {}
        self._wanted: frozenset[str] = frozenset()

    async def run(self, wanted: Collection[str], tables: Iterable[Rollout], now: datetime) -> list[str]:
        """Note what is wanted now, and unload what nobody has wanted or asked for long enough.

        Args:
            wanted: adapters that replicas must have in memory.
            tables: in force, of all tasks.
            now: the present instant.

        Returns:
            The names that were unloaded.
        """
        tables = list(tables)
        now_wanted = frozenset(wanted)
        # a table that ended names the candidate it sent back, also to a controller that started since
        named = {name for table in tables for name in (table.candidate, *table.arms) if name and name != BASE}
        for name in (self._wanted | named) - now_wanted:
            self._unwanted.setdefault(name, now)
        self._wanted = now_wanted
        for name in now_wanted & set(self._unwanted):
            del self._unwanted[name]
        gone = []
        for name in left_over(self._unwanted, now_wanted, dict(self._flips.words), tables, now, self._grace_s):
            try:
                await asyncio.to_thread(self._replicas.unload_adapter, name)
            except ModelError as error:
                log.warning("%s stays loaded: %s", name, error)
                self._unwanted[name] = now  # again after another grace period
                continue
            log.info("%s: unloaded: nothing routes to it, and nobody asks it", name)
            gone.append(name)
            self._unwanted[name] = datetime.max.replace(tzinfo=now.tzinfo)
        return gone

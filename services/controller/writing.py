"""Writing routing tables: by the controller that leads, each derived from the one in force, one at a time."""

from __future__ import annotations

import asyncio
import logging

from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, NotLeading
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.controller.known import Known
from ratchet.services.controller.lead import Lead
from ratchet.services.rules.rollouts.fencing import succeeded

log = logging.getLogger("ratchet.controller")
CONFIRM_S = 8.0
"""Longer than the embedded broker holds up answers while members join."""
FLUSH_S = 5.0


class Writer:
    """Publishes tables, each under the epoch of this controller's term.

    Args:
        known: what the topics told; a written table counts there at once.
        publisher: takes tables.
        lead: whether this controller acts.
    """

    def __init__(self, known: Known, publisher: Publisher, lead: Lead) -> None:
        self._known, self._publisher, self._lead = known, publisher, lead
        self._term, self._epoch = -1, 0
        self._one_at_a_time = asyncio.Lock()

    async def write(self, table: Rollout, base: Rollout | None) -> Rollout | None:
        """Publish a table and return it; None where another one was in force by then, or another controller leads.

        Args:
            table: the new one.
            base: the one in force that it was derived from.

        Raises:
            BrokerError: Kafka is away, or has not given the task's last table back yet.
        """
        async with self._one_at_a_time:
            if not await self._leads():
                return None
            if (unread := self._known.unread(table.task)) is not None:
                await self._again(unread)
            if _id(self._known.states.get(table.task)) != _id(base):
                return None
            return await self._publish(table.model_copy(update={"epoch": self._epoch}))

    async def repeat(self, table: Rollout) -> Rollout | None:
        """Publish a table that was published before, as it was; None where another controller leads.

        Raises:
            BrokerError: Kafka is away.
        """
        async with self._one_at_a_time:
            return await self._publish(table) if await self._leads() else None

    async def settle(self, task: str) -> None:
        """See that the last table of a task came back from the topic; one that was lost there is published again.

        Raises:
            BrokerError: Kafka is away, or has not given it back yet.
        """
        async with self._one_at_a_time:
            if self._known.unread(task) is not None and await self._leads():
                unread = self._known.unread(task)
                if unread is not None:
                    await self._again(unread)

    async def _leads(self) -> bool:
        """See that this controller leads, and take in every table that there is."""
        try:
            await asyncio.to_thread(self._lead.confirm, CONFIRM_S)
        except NotLeading:
            return False
        self._known.read()
        if self._term != self._lead.term:
            self._term, self._epoch = self._lead.term, self._known.epoch + 1
        later = [task for task, one in self._known.logs.items() if succeeded(one, self._epoch)]
        if later:
            log.warning(
                "%s: a later controller has written: this one (epoch %d) writes nothing until it leads anew",
                ", ".join(sorted(later)),
                self._epoch,
            )
        return not later

    async def _again(self, unread: Rollout) -> None:
        """A table of this controller is not in the log: on its way, or lost with a broker that came back empty."""
        if not await asyncio.to_thread(self._publisher.flush, FLUSH_S):
            await asyncio.to_thread(self._lead.confirm, CONFIRM_S)
            self._known.read()
            if self._known.unread(unread.task) is None:
                return
            self._publisher.publish(unread)
        raise BrokerError(f"{unread.task}: version {unread.version} was written and cannot be read back yet")

    async def _publish(self, table: Rollout) -> Rollout:
        self._publisher.publish(table)
        self._known.wrote(table)
        log.info("%s: %s %s: %s", table.task, table.action, table.stage, table.reason)
        if left := await asyncio.to_thread(self._publisher.flush, FLUSH_S):
            log.warning("%s: Kafka has not taken %d records yet; they are kept and sent again", table.task, left)
        self._known.read()
        return table


def _id(table: Rollout | None) -> str | None:
    return table.id if table is not None else None

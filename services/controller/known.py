"""What the topics have told a controller: routing tables, adapters, people's instructions."""

from __future__ import annotations

import queue
from collections import deque

from ratchet.schemas.events import Adapter, Event
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.services.rules.rollouts.fencing import Log, read


class Known:
    """Follows the state topics; a table that this controller wrote counts until the log says otherwise.

    ``states`` are the routing tables in force by task, ``adapters`` the registry, ``asked`` the instructions that no
    table in force answers, ``logs`` what was read of each task's tables.
    """

    def __init__(self) -> None:
        self.states: dict[str, Rollout] = {}
        self.adapters: dict[str, Adapter] = {}
        self.asked: deque[Operator] = deque()
        self.logs: dict[str, Log] = {}
        self._answered: set[str] = set()
        self._written: dict[str, Rollout] = {}
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def receive(self, event: Event) -> None:
        """Take an event, in its topic's order, from any thread."""
        self._inbox.put(event)

    def read(self) -> None:
        """Take in what was received."""
        while not self._inbox.empty():
            match self._inbox.get_nowait():
                case Rollout() as table:
                    self._take(table)
                case Adapter() as adapter:
                    self.adapters[adapter.name] = adapter
                case Operator() as asked if asked.id not in self._answered and asked not in self.asked:
                    self.asked.append(asked)

    def wrote(self, table: Rollout) -> None:
        """Count on a table that was handed to Kafka, until the log was read that far."""
        self._written[table.task] = table
        self.states[table.task] = table

    def unread(self, task: str) -> Rollout | None:
        """The table that this controller wrote and has not read back."""
        return self._written.get(task)

    @property
    def epoch(self) -> int:
        """The highest epoch that any controller wrote under."""
        return max((log.epoch for log in self.logs.values()), default=0)

    def _take(self, table: Rollout) -> None:
        before = self.logs.get(table.task, Log())
        log = self.logs[table.task] = read(before, table)
        held, written = log.held, self._written.get(table.task)
        if held is None or (written is not None and held.version < written.version):
            return
        self._written.pop(table.task, None)
        self.states[table.task] = held
        if held is not before.held and held.operator_seen:
            self._answer(held.task, held.operator_seen)

    def _answer(self, task: str, seen: str) -> None:
        self._answered.add(seen)
        # topic order: what was asked before the instruction that a table answers is answered too
        asked = [one for one in self.asked if one.task == task]
        for position, one in enumerate(asked):
            if one.id == seen:
                for answered in asked[: position + 1]:
                    self.asked.remove(answered)

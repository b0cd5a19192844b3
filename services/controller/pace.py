"""How often a task's evidence is gathered: as often as the controller looks, unless ClickHouse would do little else."""

from __future__ import annotations

from datetime import datetime, timedelta

REST = 3
"""After a question that took a second, three seconds are ClickHouse's own."""
LONGEST = timedelta(seconds=60)
"""A burst is found a minute late at most; also where a clock jumped."""


class Pace:
    """When each task may be looked at again."""

    def __init__(self) -> None:
        self._rests: dict[str, tuple[datetime, datetime]] = {}

    def due(self, task: str, now: datetime) -> bool:
        """Whether a task has rested."""
        since, until = self._rests.get(task, (now, now))
        return not since <= now < until

    def took(self, task: str, since: datetime, until: datetime) -> None:
        """Note that gathering a task's evidence took from an instant to another."""
        rest = min(max(until - since, timedelta(0)) * REST, LONGEST)
        self._rests[task] = (until, until + rest)

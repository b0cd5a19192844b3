"""The monitor's loop: what is away is waited for."""

from __future__ import annotations

import asyncio

import pytest

from ratchet.consumers.monitor import keep_watching
from ratchet.schemas.errors import StoreError


class Looking:
    """A monitor whose ClickHouse is away for two looks."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.looks = 0
        self._stop = stop

    def look(self) -> int:
        self.looks += 1
        if self.looks == 3:
            self._stop.set()
            return 1
        raise StoreError("ClickHouse: connect to 127.0.0.1:9: refused")


async def test_clickhouse_away_is_waited_for_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails is tried again until it does not, with one line in the log."""
    stop = asyncio.Event()
    monitor = Looking(stop)
    await keep_watching(monitor, stop, 0.01)
    assert monitor.looks == 3
    assert [record.message for record in caplog.records] == [
        "hours are judged when this is over: ClickHouse: connect to 127.0.0.1:9: refused"
    ]

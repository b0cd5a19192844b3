"""The loop around the rollups, with a store that is away for a while."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import pytest

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.rollup import keep_rolled
from ratchet.schemas.errors import StoreError


class AwayStore:
    """Is away for three passes, then has nothing to roll up, and ends the loop."""

    def __init__(self, stop: threading.Event) -> None:
        self.passes = 0
        self.stop = stop

    def execute(self, name: str, **_: Any) -> None:
        """Noting late feedback comes first in a pass; here the pass fails at its question."""

    def query(self, name: str, **_: Any) -> list[dict[str, Any]]:
        self.passes += 1
        if self.passes <= 3:
            raise StoreError("ClickHouse is away")
        self.stop.set()
        return []


def test_clickhouse_away_is_waited_for_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on by itself: nothing is lost meanwhile, hours are just counted live."""
    stop = threading.Event()
    store = AwayStore(stop)
    with caplog.at_level(logging.WARNING, "ratchet.rollup"):
        keep_rolled(cast(Store, store), stop, every_s=0.001)
    assert store.passes == 4
    assert [record.getMessage() for record in caplog.records] == [
        "hours are counted live until they can be rolled up: ClickHouse is away"
    ]

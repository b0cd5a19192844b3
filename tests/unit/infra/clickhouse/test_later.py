"""A process that starts while ClickHouse is away goes on, and asks again."""

from typing import Any, cast

import pytest

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.later import LaterStore
from ratchet.schemas.errors import StoreError


class Answers:
    """A connection that answers."""

    closed = False

    def query(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """What was asked."""
        return [{"name": name} | params]

    def close(self) -> None:
        """Note it."""
        self.closed = True


def test_it_connects_at_the_first_question_that_can_be_asked() -> None:
    """Away at first: the question fails and the process lives; later it connects once, and is closed."""
    made: list[Answers] = []
    away = [True]

    def connect() -> Store:
        if away[0]:
            raise StoreError("connection refused")
        made.append(Answers())
        return cast("Store", made[-1])

    store = LaterStore(connect)
    with pytest.raises(StoreError, match="connection refused"):
        store.query("rollout_states")
    away[0] = False
    assert store.query("rollout_log", task="support") == [{"name": "rollout_log", "task": "support"}]
    store.query("rollout_states")
    assert len(made) == 1
    store.close()
    assert made[0].closed


def test_one_that_never_connected_closes() -> None:
    """There is nothing to close."""
    LaterStore(lambda: cast("Store", Answers())).close()

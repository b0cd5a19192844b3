"""ClickHouse for a process that must start, and go on, while it is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ratchet.infra.clickhouse.client import Store


class LaterStore:
    """Connects at the first question, and tries again at the next one where that failed.

    Args:
        connect: makes the connection.
    """

    def __init__(self, connect: Callable[[], Store]) -> None:
        self._connect = connect
        self._store: Store | None = None
        self._lock = threading.Lock()

    def query(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """Ask one question; see `Store.query`.

        Raises:
            StoreError: ClickHouse is away, or refuses.
        """
        with self._lock:
            store = self._store = self._store or self._connect()
        return store.query(name, **params)

    def close(self) -> None:
        """Close the connection, where there is one."""
        if self._store is not None:
            self._store.close()

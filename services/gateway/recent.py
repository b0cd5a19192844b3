"""A bounded memory of recent things: which task an inference was of, which feedback ids were taken."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Keeps the last ``capacity`` keys and forgets the oldest first."""

    def __init__(self, capacity: int) -> None:
        """Hold at most ``capacity`` entries."""
        self._capacity = capacity
        self._entries: dict[str, V] = {}

    def get(self, key: str) -> V | None:
        """The value, or None where the key was never put or is forgotten."""
        return self._entries.get(key)

    def put(self, key: str, value: V) -> None:
        """Remember; the key counts as the newest."""
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._entries)

"""What ingest collects between two inserts, and when it is enough."""

from __future__ import annotations

from dataclasses import dataclass, field

from ratchet.schemas.topics import Partition


@dataclass(frozen=True)
class BatchLimits:
    """A batch is inserted after ``flush_interval_s`` seconds, ``rows`` rows or ``size`` bytes of rows."""

    flush_interval_s: float = 0.5
    rows: int = 20_000
    size: int = 24 * 1024 * 1024


@dataclass
class Batch:
    """JSONEachRow lines by table, and the offsets that may be committed once they are stored.

    ``offsets`` holds for each partition the offset after the last record taken, as Kafka commits it.
    """

    lines: dict[str, list[bytes]] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    rows: int = 0
    size: int = 0
    dead_letters: int = 0
    opened_s: float | None = None

    def add(self, table: str, line: bytes) -> None:
        """Take one row; ``line`` is a JSON object without a line feed."""
        self.lines.setdefault(table, []).append(line)
        self.rows += 1
        self.size += len(line)

    def passed(self, partition: Partition, offset: int, now_s: float) -> None:
        """Note that the record at ``offset`` was dealt with (seconds on any steady clock)."""
        self.offsets[partition] = offset + 1
        if self.opened_s is None:
            self.opened_s = now_s

    def full(self, limits: BatchLimits) -> bool:
        """Whether it holds as much as one insert should."""
        return self.rows >= limits.rows or self.size >= limits.size

    def due(self, limits: BatchLimits, now_s: float) -> bool:
        """Whether it is to be inserted now: full, or its first record waited for the interval."""
        if self.opened_s is None:
            return False
        return self.full(limits) or now_s - self.opened_s >= limits.flush_interval_s

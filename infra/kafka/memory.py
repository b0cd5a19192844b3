"""A publisher that keeps events in memory: for unit tests and dry runs; passes Kafka's contract suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ratchet.infra.kafka.config import record_limit
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event
from ratchet.schemas.topics import route


class MemoryPublisher:
    """A `Publisher` whose ``events`` are what was published, in order.

    ``records`` has topic, key and value of everything that was sent, events included, and
    ``headers`` what each of them was sent with;
    ``away=True`` makes it behave as a broker that takes nothing more.
    """

    def __init__(self, queue_records: int = 100_000, follow: Callable[[Event], None] | None = None) -> None:
        """Start empty.

        Args:
            queue_records: records that may wait while ``away``; more raise `BrokerError`.
            follow: called with each event, as whoever follows its topic is.
        """
        self._follow = follow
        self.events: list[Event] = []
        self.records: list[tuple[str, bytes | None, bytes]] = []
        self.headers: list[dict[str, bytes]] = []
        self.away = False
        self.delivered = 0
        self.failed = 0
        self._queue_records = queue_records
        self._closed = False

    def publish(self, event: Event) -> None:
        """Keep one event; see `Publisher.publish`."""
        topic, key = route(event)
        self.send(topic.name, key.encode(), event.to_bytes())
        self.events.append(event)
        if self._follow is not None:
            self._follow(event)

    def send(self, topic: str, key: bytes | None, value: bytes, *, headers: Mapping[str, bytes] | None = None) -> None:
        """Keep one record; see `Publisher.send`."""
        if self._closed:
            raise BrokerError("the publisher is closed")
        if len(value) > (limit := record_limit(topic)):
            raise InvalidEvent(f"{topic}: {len(value)} bytes; allowed: {limit}")
        if len(self.records) - self.delivered >= self._queue_records:
            waiting = len(self.records) - self.delivered
            raise BrokerError(f"{topic}: Kafka does not keep up, {waiting} records wait already")
        self.records.append((topic, key, value))
        self.headers.append(dict(headers or {}))

    def flush(self, timeout_s: float) -> int:
        """Deliver what waits, unless ``away``; returns how many records still wait."""
        if not self.away:
            self.delivered = len(self.records)
        return len(self.records) - self.delivered

    def close(self) -> None:
        """Flush and take nothing more."""
        self.flush(0)
        self._closed = True

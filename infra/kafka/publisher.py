"""Publishing events: the protocol that the rooms depend on, and Kafka behind it (librdkafka).

Delivery is at least once. A record that the broker did not take within the delivery
timeout is kept and produced again at the next `flush`, which counts it as undelivered:
nothing is dropped without the caller seeing a number above zero.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ratchet.infra.kafka.config import MAX_DEAD_BYTES, connection, log, record_limit
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event
from ratchet.schemas.topics import route

_Headers = list[tuple[str, bytes]] | None
Settled = Callable[[int, KafkaError | None], None]
"""Takes the number that a record was sent with, and None once it is delivered, else why not."""

# Sending these again is of no use.
REFUSED_FOR_GOOD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
    }
)


class Publisher(Protocol):
    """Sends events to their topics, at least once."""

    def publish(self, event: Event) -> None:
        """Hand over one event; topic and key come from `route`. Never blocks.

        Raises:
            BrokerError: the local queue is full; the event was not taken.
            InvalidEvent: the event is larger than Kafka takes.
        """

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Hand over one record as it is. Never blocks; errors as `publish`."""

    def flush(self, timeout_s: float) -> int:
        """Wait for deliveries and return how many records are still undelivered (0: all are safe)."""

    def close(self) -> None:
        """Flush for a last time and let go of the connection."""


class KafkaPublisher:
    """A `Publisher` on confluent-kafka.

    ``delivered`` and ``failed`` count records (a record that failed, was produced again and
    arrived counts in both).
    """

    def __init__(
        self,
        bootstrap: str,
        idempotence: bool,
        client_id: str,
        *,
        delivery_timeout_s: float = 120.0,
        queue_records: int = 100_000,
        linger_ms: float = 5.0,
        settled: Settled | None = None,
    ) -> None:
        """Connect in the background; a broker that is away shows at `flush`.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            idempotence: ask the broker to drop the client's own repeats; the embedded broker cannot.
            client_id: what the broker's log calls this producer.
            delivery_timeout_s: seconds until an undelivered record counts as failed; 0: never.
            queue_records: records that may wait here; more raise `BrokerError`.
            linger_ms: how long a batch may wait for company.
            settled: hears of every record that was sent with a number, in the client's thread. Its
                owner has the bytes, so such a record is not kept here when it fails.
        """
        settings: dict[str, Any] = connection(bootstrap, client_id) | {
            "enable.idempotence": idempotence,
            "acks": "all",
            # as an idempotent producer has it: unlimited, a broker that hangs fills the memory with requests
            "max.in.flight.requests.per.connection": 5,
            # Java's partitioner, so that producers of other languages agree on a key's partition
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "queue.buffering.max.messages": queue_records,
            "queue.buffering.max.kbytes": 64 * 1024,
            "message.max.bytes": MAX_DEAD_BYTES + 64 * 1024,
            "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            "on_delivery": self._delivery,
            "error_cb": self._error,
        }
        self.delivered = 0
        self.failed = 0
        self._refused: deque[tuple[str, bytes | None, bytes, _Headers]] = deque()
        self._settled = settled
        self._away = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        try:
            self._producer = Producer(settings)
        except KafkaException as error:
            raise BrokerError(f"Kafka at {bootstrap}: {error}") from error
        self._poller = threading.Thread(target=self._poll, name=f"kafka-producer-{client_id}", daemon=True)
        self._poller.start()

    def publish(self, event: Event) -> None:
        """Hand over one event; see `Publisher.publish`."""
        topic, key = route(event)
        self.send(topic.name, key.encode(), event.to_bytes())

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        number: int | None = None,
        *,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Hand over one record as it is; see `Publisher.send`. With a ``number``, `Settled` hears of it."""
        if self._closed.is_set():
            raise BrokerError("the publisher is closed")
        if len(value) > (limit := record_limit(topic)):
            raise InvalidEvent(f"{topic}: {len(value)} bytes; allowed: {limit}")
        try:
            if number is None:
                self._producer.produce(topic, value=value, key=key, headers=list((headers or {}).items()))
            else:
                self._producer.produce(topic, value=value, key=key, on_delivery=partial(self._delivery, number=number))
        except BufferError:
            raise BrokerError(f"{topic}: Kafka does not keep up, {len(self._producer)} records wait already") from None
        except KafkaException as error:
            raise BrokerError(f"{topic}: {error.args[0].str()}") from error

    def flush(self, timeout_s: float) -> int:
        """Produce failed records again, wait, and return how many are still undelivered."""
        self._again()
        left: int = self._producer.flush(timeout_s)
        with self._lock:
            return left + len(self._refused)

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush for up to ``timeout_s`` seconds and stop; what stays undelivered is logged."""
        if self._closed.is_set():
            return
        left = self.flush(timeout_s)
        self._closed.set()
        self._poller.join(timeout=2.0)
        if left and self._settled is None:
            log.error("closed with %d records undelivered", left)

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.1)

    def _delivery(self, error: KafkaError | None, message: Message, number: int | None = None) -> None:
        if number is not None and self._settled is not None:
            self._settled(number, error)
        if error is None:
            self.delivered += 1
            if self._away:
                self._away = False
                log.warning("Kafka takes records again")
            return
        self.failed += 1
        topic, key, value = str(message.topic()), _bytes(message.key()), _bytes(message.value()) or b""
        # the first of a series says it; the counter tells the rest
        if not self._away:
            self._away = True
            log.error("%s: a record was not delivered and is kept: %s", topic, error.str())
        if number is not None:
            return
        with self._lock:
            self._refused.append((topic, key, value, message.headers()))

    def _again(self) -> None:
        while True:
            with self._lock:
                if not self._refused:
                    return
                topic, key, value, headers = self._refused.popleft()
            try:
                self._producer.produce(topic, value=value, key=key, headers=headers or [])
            except (BufferError, KafkaException) as error:
                with self._lock:
                    self._refused.appendleft((topic, key, value, headers))
                log.debug("%s: still refused: %s", topic, error)
                return

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            log.critical("the producer must be started anew: %s", error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            log.warning("Kafka is away; records wait: %s", error.str())


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value

"""A publisher that writes ahead: every record is in a spool on disk before it is on its way to Kafka.

While Kafka keeps up, a record goes straight on into the client's queue, and the spool is never
read. When Kafka is away or slow, the client holds a bounded number of records and the rest
waits in the file alone; a thread hands it over in order once there is room. A restart, also
one after a kill, hands over everything that was not confirmed: at least once, never less.

What goes to a brief topic is the exception. Only the newest record of a key is worth anything, and that
at once: it passes by whatever waits, and no more than one of a key waits, in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import KafkaError

from ratchet.infra.kafka.config import log, record_limit
from ratchet.infra.kafka.frames import Entry
from ratchet.infra.kafka.publisher import REFUSED_FOR_GOOD, KafkaPublisher
from ratchet.infra.kafka.spool import Spool
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event
from ratchet.schemas.topics import route

_Key = tuple[str, bytes | None]
_RETRY_S = 0.5
_CLOSE_S = 2.0
_FLUSH_POLL_S = 0.01


class SpoolStatus(NamedTuple):
    """What the spool holds."""

    bytes: int
    """Size on disk, up to one segment of confirmed records among it."""
    records: int
    """Records that Kafka has not confirmed."""
    lost: int
    """Records that this process found damaged on disk, or that Kafka refused for good."""


class SpooledPublisher:
    """A `Publisher` that keeps what it accepted: over Kafka's absence, a restart and a ``kill -9``."""

    def __init__(
        self,
        bootstrap: str,
        idempotence: bool,
        client_id: str,
        spool: Spool,
        *,
        in_flight_records: int = 10_000,
        in_flight_bytes: int = 16 * 2**20,
        sync_interval_s: float = 1.0,
        linger_ms: float = 5.0,
    ) -> None:
        """Connect in the background, and hand over what an earlier process left in the spool.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            idempotence: as for `KafkaPublisher`.
            client_id: what the broker's log calls this producer.
            spool: where records lie until they are confirmed; closed with this object.
            in_flight_records: records that the Kafka client may hold in memory; more wait in the spool alone.
            in_flight_bytes: the same for the bytes of their values.
            sync_interval_s: a record that is not confirmed after this long, twice at most, is
                synced to the disk; while Kafka keeps up the disk is left alone.
            linger_ms: how long a batch may wait for company.
        """
        self._spool = spool
        self._in_flight_records = in_flight_records
        self._in_flight_bytes = in_flight_bytes
        self._sync_interval_s = sync_interval_s
        self._lock = threading.Lock()
        # Handed to the client and not confirmed: sequence number → bytes, in the order of the numbers.
        self._flight: dict[int, int] = {}
        self._flight_bytes = 0
        self._failed: set[int] = set()  # those of them that came back
        self._sent = spool.confirmed  # the first number that was never handed over
        self._direct = spool.confirmed == spool.next  # nothing waits in the spool alone
        self._unsent: Iterator[Entry] = iter(())  # where reading from ``_sent`` on has got to
        self._lost = 0
        # Of brief topics: the number (below 0) of the record under way → its key, and by key the newer one that waits.
        self._brief: dict[int, _Key] = {}
        self._newer: dict[_Key, bytes | None] = {}
        self._numbers = 0
        self._closed = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        if not self._direct:
            log.warning("%d records of an earlier run wait in %s", spool.next - self._sent, spool.folder)
        # no timeout: a record that the client gave up would be overtaken by those after it
        self._kafka = KafkaPublisher(
            bootstrap, idempotence, client_id, delivery_timeout_s=0, linger_ms=linger_ms, settled=self._settled
        )
        self._thread = threading.Thread(target=self._run, name=f"spool-{client_id}", daemon=True)
        self._thread.start()

    def publish(self, event: Event) -> None:
        """Keep one event and hand it over; see `Publisher.publish`.

        Raises:
            BrokerError: the spool is full or cannot be written; the event was not taken.
            InvalidEvent: the event is larger than Kafka takes.
        """
        topic, key = route(event)
        if topic.brief:
            self._pass_by((topic.name, key.encode()), event.to_bytes())
        else:
            self.send(topic.name, key.encode(), event.to_bytes())

    def send(self, topic: str, key: bytes | None, value: bytes) -> None:
        """Keep one record as it is and hand it over; errors as `publish`."""
        if len(value) > (limit := record_limit(topic)):
            raise InvalidEvent(f"{topic}: {len(value)} bytes; allowed: {limit}")
        with self._lock:
            if self._closed:
                raise BrokerError("the publisher is closed")
            sequence = self._spool.append(topic, key, value)
            if self._direct and not (self._room() and self._hand_over(sequence, topic, key, value)):
                self._direct = False
                self._wake.set()

    def flush(self, timeout_s: float) -> int:
        """Wait for deliveries; returns how many records Kafka has not confirmed: they are safe on disk."""
        deadline = time.monotonic() + timeout_s
        while (left := self._waiting() + len(self._brief)) and time.monotonic() < deadline:
            time.sleep(_FLUSH_POLL_S)
        return left

    def close(self) -> None:
        """Flush for a last time and let go of Kafka and the spool; what is left there goes out at the next start."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.flush(_CLOSE_S)
        left = self._waiting()
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._kafka.close(0.0)
        self._spool.confirm(self._watermark())
        self._spool.close()
        if left:
            log.warning("%d records wait in %s and are sent at the next start", left, self._spool.folder)

    def status(self) -> SpoolStatus:
        """What the spool holds now."""
        return SpoolStatus(self._spool.size, self._waiting(), self._lost)

    def accepts(self) -> bool:
        """Whether there is room for more, also on the disk."""
        return self._spool.has_room()

    def _waiting(self) -> int:
        with self._lock:
            return len(self._flight) + self._spool.next - self._sent

    def _watermark(self) -> int:
        with self._lock:
            return next(iter(self._flight), self._sent)

    def _room(self) -> bool:
        return len(self._flight) < self._in_flight_records and self._flight_bytes < self._in_flight_bytes

    def _hand_over(self, sequence: int, topic: str, key: bytes | None, value: bytes) -> bool:
        """Give one record to the client, with the lock held; False where it stays in the spool for now."""
        try:
            self._kafka.send(topic, key, value, sequence)
        except BrokerError as error:
            log.debug("%s", error)  # the client says once that Kafka is away
            return False
        if sequence >= self._sent:
            if sequence > self._sent:
                self._lose(sequence - self._sent)
            self._sent = sequence + 1
            self._flight[sequence] = len(value)
            self._flight_bytes += len(value)
        return True

    def _pass_by(self, key: _Key, value: bytes) -> None:
        with self._lock:
            if self._closed:
                raise BrokerError("the publisher is closed")
            if key in self._newer:
                self._newer[key] = value
            else:
                self._hand_over_brief(key, value)

    def _hand_over_brief(self, key: _Key, value: bytes) -> None:
        """Give the client a record that is on no disk, with the lock held; its key has one under way from now on."""
        self._numbers -= 1
        self._kafka.send(*key, value, self._numbers)
        self._brief[self._numbers] = key
        self._newer[key] = None

    def _settled_brief(self, number: int) -> None:
        """Send the newer record that waited for this one, whatever became of it, with the lock held."""
        key = self._brief.pop(number)
        if (newer := self._newer.pop(key)) is not None:
            try:
                self._hand_over_brief(key, newer)
            except BrokerError as error:
                log.debug("%s", error)  # a still newer one comes

    def _settled(self, sequence: int, error: KafkaError | None) -> None:
        """Hear from the client, in its thread, what became of a record."""
        with self._lock:
            if sequence < 0:
                self._settled_brief(sequence)
                return
            if error is None or error.code() in REFUSED_FOR_GOOD:
                self._flight_bytes -= self._flight.pop(sequence, 0)
            else:
                self._failed.add(sequence)
                self._direct = False
            if error is not None and error.code() in REFUSED_FOR_GOOD:
                self._lose(1)
            wake = not self._direct and 2 * len(self._flight) < self._in_flight_records
        if wake:
            self._wake.set()

    def _lose(self, count: int) -> None:
        if count:
            self._lost += count
            log.error(
                "%s: %d records are lost: damaged on disk, or refused by Kafka for good", self._spool.folder, count
            )

    def _run(self) -> None:
        """Hand over what waits, and keep the spool small and safe."""
        kept_at, kept_next, said = time.monotonic(), self._spool.next, ""
        while not self._stop.is_set():
            try:
                self._catch_up()
                if time.monotonic() >= kept_at + self._sync_interval_s:
                    watermark = self._watermark()
                    self._spool.confirm(watermark)
                    if watermark < kept_next:  # some have waited since the look before this one
                        self._spool.sync()
                    kept_at, kept_next = time.monotonic(), self._spool.next
                said = ""
            except OSError as error:
                if str(error) != said:
                    said = str(error)
                    log.error("the spool could not be kept and is tried again: %s", said)
            self._wake.wait(self._sync_interval_s if self._direct else _RETRY_S)
            self._wake.clear()

    def _catch_up(self) -> None:
        """Send again what came back, then what was never sent, until there is no more room."""
        if self._failed:
            self._stop.wait(_RETRY_S)  # what caused it, e.g. a missing topic, needs a moment
            self._again()
        while not self._stop.is_set():
            with self._lock:
                if self._sent == self._spool.next and not self._failed:
                    self._direct, self._unsent = True, iter(())
                if self._direct or self._failed or not self._room():
                    return
            end = self._spool.next
            entry = next(self._unsent, None)
            if entry is None:  # caught up once: look again for what came in meanwhile
                self._unsent = self._spool.read(self._sent)
                entry = next(self._unsent, None)
            with self._lock:
                if entry is None:  # not one whole record up to the end
                    self._lose(end - self._sent)
                    self._sent = end
                elif not self._hand_over(*entry):
                    self._unsent = iter(())  # it was taken out, so the next look begins with it
                    return

    def _again(self) -> None:
        """Send the records that came back once more, in order."""
        with self._lock:
            missing = set(self._failed)
        for entry in self._spool.read(min(missing)):
            if entry.sequence in missing:
                with self._lock:
                    if not self._hand_over(*entry):
                        return
                    self._failed.discard(entry.sequence)
                missing.discard(entry.sequence)
                if not missing:
                    return
        with self._lock:
            for sequence in missing:  # damaged since
                self._failed.discard(sequence)
                self._flight_bytes -= self._flight.pop(sequence)
            self._lose(len(missing))

"""Following state topics from their beginning without a group; and what a topic holds now (history.py) as values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from ratchet.infra.kafka.admin import ranges
from ratchet.infra.kafka.config import consumer, log
from ratchet.infra.kafka.history import ends, read
from ratchet.schemas.decoding import parse_any
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event
from ratchet.schemas.topics import Topic

ANSWER_S = 10.0
CHECK_S = 3.0
"""How often a quiet tail asks whether the broker still has what was read."""
_LOST = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT}


@dataclass(frozen=True)
class Record:
    """One Kafka record: where it lies and its bytes."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


def read_all(bootstrap: str, topic: str, timeout_s: float = 30.0) -> Iterator[Record]:
    """Read a topic from its beginning to its present end, partition order kept.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        topic: the topic's name; one that does not exist has no records.
        timeout_s: seconds without progress after which Kafka counts as away.

    Raises:
        BrokerError: Kafka is away or stops answering.
    """
    for messages in read(bootstrap, ranges(bootstrap, [topic]), timeout_s):
        for message in messages:
            yield _record(message)


class Tail:
    """Follows a state topic from its beginning in a thread of its own, without a group.

    Every process with a `Tail` sees every event, in order. A broker that is away is waited
    for. After a lost connection the topic is read from its beginning again, because the
    embedded broker comes back empty and may have been seeded anew: ``apply`` must bear
    seeing an event twice (versions only grow).
    """

    def __init__(self, bootstrap: str, topic: Topic, apply: Callable[[Event], None]) -> None:
        """Prepare; `start` begins to read.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            topic: a topic of the table, usually a compacted one.
            apply: called with each event in the tail's thread; what it raises is logged and
                counted in ``failed``, and the next event is applied.
        """
        self.applied = 0
        self.failed = 0
        self._bootstrap = bootstrap
        self._topic = topic
        self._apply = apply
        self._lost = False
        self._heard = time.monotonic()
        self._position = 0
        self._moved = threading.Condition()
        self._caught_up = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kafka-tail-{topic.name}", daemon=True)

    def start(self) -> None:
        """Begin to read in the background; returns at once."""
        self._thread.start()

    def caught_up(self, timeout_s: float) -> bool:
        """Wait until everything that the topic held at the start was applied; False after ``timeout_s`` seconds."""
        return self._caught_up.wait(timeout_s)

    def read_to(self, offset: int, timeout_s: float) -> bool:
        """Wait until everything before this offset of a topic's only partition was applied; False when time is up."""
        with self._moved:
            return self._moved.wait_for(lambda: self._position >= offset, timeout_s)

    def silent_s(self) -> float:
        """Seconds since the broker last answered: `CHECK_S` or so while all is well, however quiet the topic is.

        It grows while the broker is away or hangs, and when the tail's thread is no more: what was applied may be old.
        """
        return time.monotonic() - self._heard

    def close(self) -> None:
        """Stop reading and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=ANSWER_S)

    def _run(self) -> None:
        # a closed connection is an error event here, because behind it the broker may have forgotten
        settings = consumer(self._bootstrap, "ratchet.tail", "ratchet-tail") | {"enable.partition.eof": True}
        reader = Consumer(settings | {"log.connection.close": True, "error_cb": self._error})
        try:
            waiting = self._begin(reader)
            quiet_since = time.monotonic()
            while not self._stop.is_set():
                message = reader.poll(0.2)
                if self._lost:
                    log.warning("%s: the connection was lost: reading from the beginning again", self._topic.name)
                    waiting = self._begin(reader)
                    self._lost = False
                    continue
                if message is None:
                    if time.monotonic() - quiet_since > CHECK_S:
                        quiet_since = time.monotonic()
                        if self._forgotten(reader):
                            waiting = self._begin(reader)
                    continue
                if (error := message.error()) is None:
                    self._heard = quiet_since = time.monotonic()
                    self._take(_record(message))
                    self._move(int(message.offset() or 0) + 1)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._heard = time.monotonic()
                    self._move(int(message.offset() or 0))
                    waiting.discard(message.partition())
                    if not waiting:
                        self._caught_up.set()
        finally:
            reader.close()

    def _move(self, position: int) -> None:
        with self._moved:
            self._position = position
            self._moved.notify_all()

    def _error(self, error: KafkaError) -> None:
        # called from within poll
        if error.code() in _LOST:
            self._lost = True

    def _forgotten(self, reader: Consumer) -> bool:
        """Whether the broker's log ends before what was read of it: it lost its records in between."""
        try:
            for position in reader.position(reader.assignment()):
                _, said = reader.get_watermark_offsets(position, timeout=ANSWER_S)
                self._heard = time.monotonic()
                partition = (position.topic, position.partition)
                # what a fetch finds decides: the embedded broker says less than the end of a batch of several records
                if said < position.offset and ends(self._bootstrap, {partition: said})[partition] < position.offset:
                    log.warning("%s: the broker came back empty: reading from the beginning again", self._topic.name)
                    return True
        except (KafkaException, BrokerError) as error:
            log.debug("%s: %s", self._topic.name, error)
        return False

    def _begin(self, reader: Consumer) -> set[int]:
        """Assign all partitions from their beginning, however long the broker or the topic takes to appear."""
        said = False
        self._move(0)
        while not self._stop.is_set():
            problem = "no such topic yet"
            try:
                if partitions := _assign_all(reader, self._topic.name):
                    self._heard = time.monotonic()
                    if said:
                        log.warning("%s: found, reading it", self._topic.name)
                    return set(partitions)
            except KafkaException as error:
                problem = error.args[0].str()
            if not said:
                said = True
                log.warning("%s at %s: waiting: %s", self._topic.name, self._bootstrap, problem)
            self._stop.wait(0.5)
        return set()

    def _take(self, record: Record) -> None:
        if record.value is None:
            return  # a tombstone: compaction removed the key
        try:
            event = parse_any(record.value, self._topic.events)
        except InvalidEvent as error:
            # ingest reads the same record and dead-letters it, with its bytes
            self.failed += 1
            log.warning("%s offset %d is no event and was passed over: %s", record.topic, record.offset, error)
            return
        try:
            self._apply(event)
            self.applied += 1
        except Exception:  # noqa: BLE001 - a follower that dies would serve stale state for ever: say it, take the next event
            self.failed += 1
            log.exception("%s offset %d could not be applied", record.topic, record.offset)


def _assign_all(reader: Consumer, topic: str) -> list[int]:
    metadata = reader.list_topics(topic, timeout=ANSWER_S).topics[topic]
    partitions = sorted(metadata.partitions) if metadata.error is None else []
    if partitions:
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    return partitions


def _record(message: Message) -> Record:
    key = message.key()
    return Record(
        str(message.topic()),
        int(message.partition() or 0),
        int(message.offset() or 0),
        key.encode() if isinstance(key, str) else key,
        message.value(),
    )

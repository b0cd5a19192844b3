"""Ingest: every event of the loop into ClickHouse, in batches, none lost and none counted twice.

The hot path: librdkafka's batches, validation, one JSONEachRow insert a table, and only
then the commit. Rows are idempotent (the sorting key ends in the event's id), so reading a
record twice is harmless and losing one is not: whatever goes wrong, the answer is to leave
the offset where it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ratchet.consumers.rules.batch import Batch, BatchLimits
from ratchet.consumers.rules.flood import FloodPolicy, Seen, Window, flood_alert, flooding, observe, over
from ratchet.consumers.taking import CARRIED, GROUP, take, where
from ratchet.consumers.writer import DELIVERY_S, Writer
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import now
from ratchet.infra.kafka.config import consumer, group_id
from ratchet.infra.kafka.dead import dead_letter
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, FloodError, StoreError
from ratchet.schemas.rows import row
from ratchet.schemas.topics import Partition

log = logging.getLogger("ratchet.ingest")
CHUNK = 2_000
"""Records a poll takes at most: the unit in which a flood is noticed."""
STALL_S = 1.0
"""How long a full batch may wait for the writer before polling goes on with paused partitions."""
REVOKE_S = 5.0
LAST_COMMIT_S = 3.0


class Ingest:
    """Reads all topics of the group ``ingest`` and writes their events to ClickHouse.

    Counters, since the start: ``rows`` stored, ``batches`` inserted, ``dead_letters`` published.
    """

    def __init__(
        self,
        bootstrap: str,
        store: Store,
        publisher: Publisher,
        flush_interval_s: float = 0.5,
        *,
        limits: BatchLimits | None = None,
        flood: FloodPolicy | None = None,
        group: str = GROUP,
        session_timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `run` connects.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            store: where rows go; its tables exist (`migrate`).
            publisher: where dead letters go.
            flush_interval_s: seconds that a record waits for company at most.
            limits: rows and bytes of a batch; its interval wins over ``flush_interval_s``.
            flood: from when on bad messages stop the consumer.
            group: whose offsets count; another one reads the same topics from their beginning.
            session_timeout_s: after how many silent seconds Kafka takes this process for dead.
            clock: seconds on a steady clock.
        """
        self.dead_letters = 0
        self._bootstrap = bootstrap
        self._store = store
        self._publisher = publisher
        self._limits = limits or BatchLimits(flush_interval_s)
        self._flood = flood or FloodPolicy()
        self._settings = consumer(bootstrap, group_id(group), "ratchet-ingest") | {
            "session.timeout.ms": int(session_timeout_s * 1000),
            "on_commit": self._committed,
            "error_cb": self._kafka_said,
        }
        self._clock = clock
        self._batch = Batch()
        self._window: Window = ()
        self._paused: list[TopicPartition] = []
        self._refused_commit = False
        self._commits_open = 0
        self._broker_away = False
        self._consumer: Consumer | None = None
        self._writer: Writer | None = None
        self._floods: list[dict[str, Any]] | None = None

    @property
    def rows(self) -> int:
        """Rows stored since the start; a redelivered event counts again here, in no table."""
        return self._writer.rows if self._writer else 0

    @property
    def batches(self) -> int:
        """Batches stored since the start."""
        return self._writer.batches if self._writer else 0

    @property
    def stalled(self) -> bool:
        """Whether ClickHouse does not take rows at the moment."""
        return self._writer is not None and self._writer.away

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set; what was read by then is stored and committed before it returns.

        Raises:
            FloodError: too many messages are no events; what came before them is stored, they
                themselves are neither dead-lettered nor acknowledged, and an alert says so.
            BrokerError: Kafka refuses this consumer for good, or takes no dead letters.
        """
        reader = Consumer(self._settings)
        writer = Writer(self._store, self._publisher, stop)
        self._consumer, self._writer = reader, writer
        try:
            reader.subscribe(list(CARRIED), on_revoke=self._revoked, on_lost=self._lost)
            poll_s = min(0.05, self._limits.flush_interval_s / 5)
            while not stop.is_set():
                self._take(reader.consume(CHUNK, poll_s))
                if self._batch.due(self._limits, self._clock()):
                    self._hand_over(writer)
                self._commit(reader, writer)
        finally:
            # after a FloodError too: what came before the flood is good
            if writer.wait(None):
                self._submit(writer)
                writer.wait(None)
            writer.close()
            self._commit_last(reader, writer)
            reader.close()

    def _commit(self, reader: Consumer, writer: Writer) -> None:
        """Commit what is stored, without waiting for the answer.

        librdkafka is used from this thread alone: a commit that waits in another thread while this
        one consumes can hang for ever (confluent-kafka-python, issue 1801; seen here too).
        """
        if not (stored := writer.stored()):
            return
        positions = [TopicPartition(topic, part, offset) for (topic, part), offset in stored.items()]
        try:
            reader.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            log.warning("offsets were not committed, later ones will be: %s", error)
            return
        self._commits_open += 1
        self._past_floods(stored)

    def _past_floods(self, stored: Mapping[Partition, int]) -> None:
        """Resolve the alerts of floods that ingest stood before and has now passed."""
        if self._floods is None:
            # asked once rows went in, so ClickHouse is there; a later flood ends this process
            try:
                floods = self._store.query("floods_open")
            except StoreError:
                return  # it left in between: the next commit asks again
            self._floods = [flood | {"evidence": orjson.loads(flood["evidence"])} for flood in floods]
        for flood in list(self._floods):
            at = flood["evidence"]
            if stored.get((at["topic"], at["partition"]), -1) > at["offset"]:
                self._publisher.publish(over(flood, now()))
                self._floods.remove(flood)

    def _committed(self, error: KafkaError | None, _partitions: list[TopicPartition]) -> None:
        """Kafka's answer to a commit.

        What it refused is not tried again: the next batch's offsets cover it, and after a rebalance
        it is no longer ours to commit. At worst stored records are read and replaced once more.
        """
        self._commits_open -= 1
        self._refused_commit = error is not None
        if error is not None:
            log.warning("offsets were not committed, later ones will be: %s", error.str())

    def _commit_last(self, reader: Consumer, writer: Writer) -> None:
        self._commit(reader, writer)
        deadline = time.monotonic() + LAST_COMMIT_S
        while self._commits_open > 0 and time.monotonic() < deadline:
            reader.poll(0.05)  # serves the answer; a record that comes along stays unacknowledged
        if self._commits_open > 0 or self._refused_commit:
            log.warning("the last offsets were not committed; their records are read, and stored, again")

    def _take(self, messages: list[Message]) -> None:
        now_s = self._clock()
        records = []
        for message in messages:
            if (error := message.error()) is None:
                records.append(message)
            else:
                self._kafka_said(error)
        if not records:
            return
        self._works_again()
        taken = take(records)
        self._window = observe(self._window, Seen(now_s, len(records), len(taken.bad)), self._flood)
        if taken.bad:
            self._refuse_flood(taken.bad)
            self._bury(taken.bad)
        for table, line in taken.rows:
            self._batch.add(table, line)
        for partition, offset in taken.passed.items():
            self._batch.passed(partition, offset, now_s)

    def _refuse_flood(self, bad: list[tuple[Message, str]]) -> None:
        if not (problem := flooding(self._window, self._flood)):
            return
        letter = dead_letter(*bad[0])
        alert = flood_alert(letter, problem, now())
        self._publisher.publish(alert)
        if left := self._publisher.flush(DELIVERY_S):
            log.error("the alert did not reach Kafka within %g s (%d records wait)", DELIVERY_S, left)
        # nobody ingests the alert while ingest is down, so its row goes in with what came before the flood
        stored = row(alert)
        assert stored is not None
        self._batch.add(stored[0], orjson.dumps(stored[1]))
        raise FloodError(f"ingest stops: {problem}; one of them, {where(bad[0][0])}: {letter.reason}. {alert.action}")

    def _bury(self, bad: list[tuple[Message, str]]) -> None:
        for message, reason in bad:
            letter = dead_letter(message, reason)
            try:
                self._publisher.publish(letter)
            except BrokerError:
                # the local queue is full: wait for room once, then end rather than pass the record over
                self._publisher.flush(DELIVERY_S)
                self._publisher.publish(letter)
        self.dead_letters += len(bad)
        self._batch.dead_letters += len(bad)
        message, reason = bad[0]
        log.warning("%d dead letters, the first: %s: %s", len(bad), where(message), reason)

    def _hand_over(self, writer: Writer) -> None:
        """Give the batch to the writer; while that is busy with a full one behind it, read nothing more."""
        if writer.idle() or (self._batch.full(self._limits) and writer.wait(STALL_S)):
            self._submit(writer)
            self._resume()
        elif self._batch.full(self._limits):
            self._pause()

    def _submit(self, writer: Writer) -> None:
        if self._batch.offsets or self._batch.rows:
            writer.submit(self._batch)
            self._batch = Batch()

    def _pause(self) -> None:
        # polling goes on, so that the group keeps this member; a paused partition's records stay in Kafka
        assert self._consumer is not None
        if not self._paused and (assigned := self._consumer.assignment()):
            self._consumer.pause(assigned)
            self._paused = assigned

    def _resume(self) -> None:
        if self._paused:
            assert self._consumer is not None
            self._consumer.resume(self._paused)
            self._paused = []

    def _revoked(self, reader: Consumer, partitions: list[TopicPartition]) -> None:
        """Store and commit what was read, if that goes quickly; what does not is read again by its next owner."""
        writer = self._writer
        if writer is not None and writer.wait(REVOKE_S):
            self._submit(writer)
            writer.wait(REVOKE_S)
            self._commit(reader, writer)
        self._lost(reader, partitions)

    def _lost(self, _reader: Consumer, _partitions: list[TopicPartition]) -> None:
        # assignment is eager: all partitions go at once, so the whole batch does
        self._batch = Batch()
        self._paused = []
        if self._writer is not None:
            self._writer.forget()

    def _kafka_said(self, error: KafkaError) -> None:
        if error.fatal():
            raise BrokerError(f"Kafka refuses ingest: {error.str()}")
        if not self._broker_away:
            self._broker_away = True
            log.warning("Kafka at %s: %s; waiting for it", self._bootstrap, error.str())

    def _works_again(self) -> None:
        if self._broker_away:
            self._broker_away = False
            log.warning("Kafka at %s gives records again", self._bootstrap)

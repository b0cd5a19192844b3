"""Consumers on FastStream with the loop's one acknowledgement policy: handled, delivered, then acknowledged.

FastStream's own policies do not fit: the default ``ACK_FIRST`` loses an event in a crash,
``reject()`` is an acknowledgement in disguise, ``ack()`` commits whatever the client has
polled on any partition, and an immediate ``nack()`` spins. So: ``MANUAL``, the offset of
exactly the handled record is stored after its handler and its publications are through
(librdkafka commits stored offsets twice a second, at a rebalance and at the end), and a
record whose handler fails is read again after a bounded back-off during which only its own
partition waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from faststream import AckPolicy
from faststream.confluent import KafkaBroker, KafkaMessage
from faststream.confluent.schemas import Topic as Declared

from ratchet.infra.kafka.backoff import LAST_S, backoff_s
from ratchet.infra.kafka.config import MAX_RECORD_BYTES, group_id, log
from ratchet.infra.kafka.dead import dead_letter
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.decoding import parse_any
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event
from ratchet.schemas.topics import Topic

stream_log = logging.getLogger("ratchet.kafka.stream")
_EXPECTED = ("Auto create topics is disabled", "is a consumer property")
"""FastStream warns of what is meant so: topics are not made by use, one configuration serves both clients."""
stream_log.addFilter(lambda record: not any(text in record.getMessage() for text in _EXPECTED))

Handler = Callable[[Event], Awaitable[None]]
FLUSH_S = 30.0


def make_broker(bootstrap: str) -> KafkaBroker:
    """A FastStream broker for `subscribe`; start and stop it with its application.

    Args:
        bootstrap: ``host:port[,host:port…]``.
    """
    return KafkaBroker(
        bootstrap,
        client_id="ratchet",
        # topics are made by `ensure_topics`, with the table's partitions and compaction
        allow_auto_create_topics=False,
        logger=stream_log,
        log_level=logging.DEBUG,
        max_request_size=MAX_RECORD_BYTES,
        config={
            "enable.auto.commit": True,
            "auto.commit.interval.ms": 500,
            "enable.auto.offset.store": False,
            "reconnect.backoff.max.ms": 2_000,
            "log.connection.close": False,
        },
    )


def subscribe(
    broker: KafkaBroker,
    topic: Topic,
    group: str,
    handle: Handler,
    publisher: Publisher,
    max_poll_interval_s: int = 300,
    last_backoff_s: float = LAST_S,
) -> None:
    """Have ``handle`` called for every event of ``topic``, once or more, in order within a partition.

    A record that is no event is dead-lettered. A record is acknowledged after ``handle``
    returned and everything it published was delivered; a handler that raises gets the record
    again after a back-off. What fails is said once, and again when it works.

    Args:
        broker: from `make_broker`, not started yet.
        topic: a topic of the table.
        group: the consumer group's name in the table; in Kafka it is ``ratchet.<group>``.
        handle: the work; it must bear seeing an event twice.
        publisher: where ``handle`` publishes and dead letters go.
        max_poll_interval_s: seconds that one call of ``handle`` may take before Kafka gives
            its partitions to another member.
        last_backoff_s: the longest wait between two tries.
    """
    subscription = _Subscription(topic, group, handle, publisher, last_backoff_s)
    broker.subscriber(
        Declared(topic.name, declare=False),
        group_id=group_id(group),
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,
        max_poll_interval_ms=max_poll_interval_s * 1000,
        fetch_max_wait_ms=500,
        polling_interval=0.2,
        no_reply=True,
    )(subscription.on_message)


class _Subscription:
    """One topic of one group: its handler and the failures in a row of each partition."""

    def __init__(self, topic: Topic, group: str, handle: Handler, publisher: Publisher, last_backoff_s: float) -> None:
        self._topic = topic
        self._group = group
        self._handle = handle
        self._publisher = publisher
        self._last_backoff_s = last_backoff_s
        self._failures: dict[int, int] = {}
        self._resuming: set[asyncio.Task[None]] = set()

    async def on_message(self, message: KafkaMessage) -> None:
        record = message.raw_message
        assert isinstance(record, Message)
        at = TopicPartition(self._topic.name, int(record.partition() or 0), int(record.offset() or 0))
        consumer: Consumer = message.consumer.consumer  # type: ignore[attr-defined]
        member = consumer.memberid()
        try:
            await self._process(record)
            undelivered = await asyncio.to_thread(self._publisher.flush, FLUSH_S)
            if undelivered:
                raise BrokerError(f"{undelivered} published records are still undelivered")
        except Exception as error:  # noqa: BLE001 - whatever fails in a handler means the same: not done, again later
            self._retry(consumer, member, at, error)
            return
        if self._failures.pop(at.partition, None):
            log.warning("%s: %s works again (partition %d)", self._group, self._topic.name, at.partition)
        self._acknowledge(consumer, member, at)

    async def _process(self, record: Message) -> None:
        value = record.value()
        if value is None:
            return  # a tombstone: compaction removed the key
        try:
            event = parse_any(value, self._topic.events)
        except InvalidEvent as error:
            self._publisher.publish(dead_letter(record, str(error)))
            return
        await self._handle(event)

    def _left(self, consumer: Consumer, member: str) -> bool:
        """Whether this process joined the group anew while it worked.

        The broker may have lost its memory then: an old offset would be a position in its new records.
        """
        return bool(consumer.memberid() != member)

    def _acknowledge(self, consumer: Consumer, member: str, at: TopicPartition) -> None:
        if self._left(consumer, member):
            return
        try:
            consumer.store_offsets(offsets=[TopicPartition(at.topic, at.partition, at.offset + 1)])
        except KafkaException as error:
            # the partition went to another member while we worked: it handles the record again
            log.info("%s: %s[%d] was taken away: %s", self._group, at.topic, at.partition, error.args[0].str())

    def _retry(self, consumer: Consumer, member: str, at: TopicPartition, error: Exception) -> None:
        failures = self._failures[at.partition] = self._failures.get(at.partition, 0) + 1
        wait_s = backoff_s(failures, last_s=self._last_backoff_s)
        said = log.warning if failures == 1 else log.debug
        said(
            "%s: %s[%d] offset %d failed and is tried again, at most every %g s: %r",
            self._group,
            at.topic,
            at.partition,
            at.offset,
            self._last_backoff_s,
            error,
            exc_info=error if failures == 1 else None,
        )
        if self._left(consumer, member):
            return
        try:
            # paused, so that polling goes on: other partitions work and the group keeps this member
            consumer.pause([TopicPartition(at.topic, at.partition)])
            consumer.seek(at)
        except KafkaException as lost:
            log.info("%s: %s[%d] was taken away: %s", self._group, at.topic, at.partition, lost.args[0].str())
            return
        task = asyncio.get_running_loop().create_task(self._resume(consumer, at, wait_s))
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _resume(self, consumer: Consumer, at: TopicPartition, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        # closed or reassigned meanwhile: whoever has the partition now reads it from the last acknowledgement
        with contextlib.suppress(KafkaException, RuntimeError):
            consumer.resume([TopicPartition(at.topic, at.partition)])

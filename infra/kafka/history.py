"""Reading what topics hold, between given offsets, without a group: nobody's position changes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ratchet.infra.kafka.config import consumer
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.topics import Partition

CHUNK = 2_000


def read(bootstrap: str, wanted: Mapping[Partition, range], timeout_s: float = 30.0) -> Iterator[list[Message]]:
    """Read every record that lies in these ranges, in chunks; the order within a partition is kept.

    What retention or compaction took away meanwhile is not there to be read, and is no error.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        wanted: offsets by partition, see `ratchet.infra.kafka.admin.ranges`.
        timeout_s: seconds without progress after which Kafka counts as away.

    Raises:
        BrokerError: Kafka is away or stops answering.
    """
    left = {partition: offsets.stop for partition, offsets in wanted.items() if offsets}
    if not left:
        return
    reader = _reader(bootstrap)
    try:
        reader.assign([TopicPartition(*partition, wanted[partition].start) for partition in left])
        deadline = time.monotonic() + timeout_s
        while left:
            messages = reader.consume(CHUNK, 0.2)
            if not messages and time.monotonic() >= deadline:
                topics = ", ".join(sorted({topic for topic, _ in left}))
                raise BrokerError(f"{topics}: Kafka at {bootstrap} stopped answering for {timeout_s:g} s")
            if found := _within(reader, messages, left):
                deadline = time.monotonic() + timeout_s
                yield found
                deadline = time.monotonic() + timeout_s  # what the caller took is not Kafka's silence
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    finally:
        reader.close()


def ends(bootstrap: str, at_least: Mapping[Partition, int], timeout_s: float = 30.0) -> dict[Partition, int]:
    """The offset after each partition's last record, as a fetch finds it.

    Asked for a partition's end, the embedded broker answers with the second offset of its last batch, which
    is short of the end by all that follows in it.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        at_least: where to look from: what the broker says that the ends are.
        timeout_s: seconds after which Kafka counts as away.

    Raises:
        BrokerError: Kafka is away.
    """
    found: dict[Partition, int] = {}
    reader = _reader(bootstrap, {"fetch.wait.max.ms": 10})
    try:
        reader.assign([TopicPartition(*partition, offset) for partition, offset in at_least.items()])
        deadline = time.monotonic() + timeout_s
        while len(found) < len(at_least):
            if time.monotonic() >= deadline:
                raise BrokerError(f"Kafka at {bootstrap} stopped answering for {timeout_s:g} s")
            for message in reader.consume(CHUNK, 0.05):
                if (error := message.error()) is not None and error.code() == KafkaError._PARTITION_EOF:
                    found[str(message.topic()), int(message.partition() or 0)] = int(message.offset() or 0)
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    finally:
        reader.close()
    return found


def _reader(bootstrap: str, extra: dict[str, int] | None = None) -> Consumer:
    # librdkafka wants a group id even where no group is joined
    settings = consumer(bootstrap, "ratchet.tail", "ratchet-reader") | {"enable.partition.eof": True}
    return Consumer(settings | (extra or {}))


def _within(reader: Consumer, messages: list[Message], left: dict[Partition, int]) -> list[Message]:
    """Those records that lie before their partition's end; a partition that reached it is taken out of ``left``."""
    found: list[Message] = []
    for message in messages:
        partition, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            if not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
                raise BrokerError(f"{partition[0]}: {error.str()}")
            continue
        if (end := left.get(partition)) is None:
            continue
        if error is None and offset < end:
            found.append(message)
        if error is not None or offset + 1 >= end:
            del left[partition]
            reader.pause([TopicPartition(*partition)])
    return found

"""Topics, readiness and lag: what an operator's tools ask of Kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from ratchet.infra.kafka.config import connection, group_id, record_limit
from ratchet.infra.kafka.history import ends
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.topics import TOPICS, Partition, Topic

log = logging.getLogger("ratchet.kafka")
REQUEST_S = 15.0
STATE_KEPT_MS = 365 * 24 * 60 * 60 * 1000
"""How long a compacted topic keeps every record: the audit log of rollouts can be made again from so far back."""
BRIEF_KEPT_MS = 24 * 60 * 60 * 1000
"""How long a brief topic keeps any record: a gateway that was stopped is forgotten after it."""


def ensure_topics(bootstrap: str, replication: int = 1, topics: tuple[Topic, ...] = TOPICS) -> list[str]:
    """Create the topics of the table that are missing and return their names.

    Idempotent; existing topics are left as they are.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        replication: copies of each new topic's partitions.
        topics: which topics; all of the table by default.

    Raises:
        BrokerError: Kafka is away or refuses a topic.
    """
    missing = missing_topics(bootstrap, topics)
    wanted = [topic for topic in topics if topic.name in missing]
    if not wanted:
        return []
    admin = _admin(bootstrap)
    created: list[str] = []
    for name, future in admin.create_topics([_new(topic, replication) for topic in wanted]).items():
        try:
            future.result(timeout=REQUEST_S)
            created.append(name)
        except KafkaException as error:
            # another process of the loop may have been faster
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerError(f"{name}: Kafka refuses the topic: {error.args[0].str()}") from error
    _await_leaders(admin, bootstrap, {topic.name for topic in wanted})
    return created


def missing_topics(bootstrap: str, topics: tuple[Topic, ...] = TOPICS) -> list[str]:
    """Name the topics of the table that Kafka does not have.

    Raises:
        BrokerError: Kafka is away.
    """
    present = _metadata(_admin(bootstrap), bootstrap)
    return [topic.name for topic in topics if topic.name not in present]


def wait_for_broker(bootstrap: str, timeout_s: float) -> None:
    """Return once Kafka answers.

    Raises:
        BrokerError: no answer within ``timeout_s`` seconds.
    """
    # a broker that is starting refuses connections: no news while we wait for it
    admin = AdminClient(connection(bootstrap, "ratchet-admin") | {"log_level": 0})
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if admin.list_topics(timeout=max(0.05, min(1.0, deadline - time.monotonic()))).brokers:
                return
        except KafkaException as error:
            if time.monotonic() >= deadline:
                raise BrokerError(f"Kafka at {bootstrap} did not answer within {timeout_s:g} s") from error
        time.sleep(0.05)


def lag(bootstrap: str, group: str) -> int:
    """Records that the consumer group of the topic table has not acknowledged yet.

    A group that never committed lags by everything its topics hold.

    Raises:
        BrokerError: Kafka is away or refuses.
    """
    held = ranges(bootstrap, [topic.name for topic in TOPICS if group in topic.groups])
    if not held:
        return 0
    request = ConsumerGroupTopicPartitions(group_id(group), [TopicPartition(*partition) for partition in held])
    admin = _admin(bootstrap)  # kept: an answer to a client that is gone never comes
    try:
        answer = next(iter(admin.list_consumer_group_offsets([request]).values())).result(timeout=REQUEST_S)
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    committed = {(p.topic, p.partition): p.offset for p in answer.topic_partitions}
    return sum(max(0, has.stop - max(committed.get(part, -1), has.start)) for part, has in held.items())


def ranges(bootstrap: str, names: Iterable[str]) -> dict[Partition, range]:
    """The offsets that each partition of these topics holds now, from its oldest record to its end.

    Topics that do not exist have no partitions. Compaction leaves gaps within a range.

    Raises:
        BrokerError: Kafka is away or refuses.
    """
    firsts = _offsets(bootstrap, names, OffsetSpec.earliest())
    stops = ends(bootstrap, _offsets(bootstrap, names, OffsetSpec.latest()))
    return {partition: range(first, stops.get(partition, first)) for partition, first in firsts.items()}


def offsets_since(bootstrap: str, topic: str, since: datetime) -> dict[Partition, int]:
    """Each partition's first offset whose record has Kafka's time ``since`` or a later one; its end where none has.

    Raises:
        BrokerError: Kafka is away or refuses.
    """
    found = _offsets(bootstrap, [topic], OffsetSpec.for_timestamp(int(since.timestamp() * 1000)))
    held = ranges(bootstrap, [topic])
    return {partition: held[partition].stop if offset < 0 else offset for partition, offset in found.items()}


def _offsets(bootstrap: str, names: Iterable[str], spec: OffsetSpec) -> dict[Partition, int]:
    admin = _admin(bootstrap)
    metadata = _metadata(admin, bootstrap)
    wanted = {TopicPartition(name, p): spec for name in sorted(set(names) & set(metadata)) for p in metadata[name]}
    if not wanted:
        return {}
    try:
        found = admin.list_offsets(wanted, request_timeout=REQUEST_S)
        return {(p.topic, p.partition): int(future.result(timeout=REQUEST_S).offset) for p, future in found.items()}
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap}: {error.args[0].str()}") from error


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient(connection(bootstrap, "ratchet-admin"))


def _new(topic: Topic, replication: int) -> NewTopic:
    config = {"max.message.bytes": str(record_limit(topic.name) + 64 * 1024)}
    if topic.compacted:
        # state is small and read from the beginning by every gateway: compact early
        config |= {
            "cleanup.policy": ",".join(topic.policy),
            "segment.ms": "600000",
            "min.cleanable.dirty.ratio": "0.1",
        }
        config |= {"retention.ms": str(BRIEF_KEPT_MS)} if topic.brief else {"min.compaction.lag.ms": str(STATE_KEPT_MS)}
    return NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=replication, config=config)


def _metadata(admin: AdminClient, bootstrap: str) -> dict[str, list[int]]:
    try:
        topics = admin.list_topics(timeout=REQUEST_S).topics
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap} does not answer: {error.args[0].str()}") from error
    return {name: sorted(topic.partitions) for name, topic in topics.items() if topic.error is None}


def _await_leaders(admin: AdminClient, bootstrap: str, names: set[str]) -> None:
    """Creation is asynchronous on a real cluster: a producer that is too early would be refused."""
    deadline = time.monotonic() + REQUEST_S
    while missing := names - set(_metadata(admin, bootstrap)):
        if time.monotonic() >= deadline:
            raise BrokerError(f"Kafka at {bootstrap}: no leader for {', '.join(sorted(missing))}")
        time.sleep(0.05)

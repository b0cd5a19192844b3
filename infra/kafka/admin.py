"""Topics, readiness and lag: what an operator's tools ask of Kafka."""

from __future__ import annotations

import logging
import time

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from ratchet.infra.kafka.config import connection, group_id, record_limit
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.topics import TOPICS, Topic

log = logging.getLogger("ratchet.kafka")
REQUEST_S = 15.0


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
    admin = _admin(bootstrap)
    names = {topic.name for topic in TOPICS if group in topic.groups}
    metadata = _metadata(admin, bootstrap)
    partitions = [TopicPartition(name, p) for name in names & set(metadata) for p in metadata[name]]
    if not partitions:
        return 0
    request = ConsumerGroupTopicPartitions(group_id(group), partitions)
    try:
        ends = {
            (p.topic, p.partition): future.result(timeout=REQUEST_S).offset
            for p, future in admin.list_offsets({p: OffsetSpec.latest() for p in partitions}).items()
        }
        starts = {
            (p.topic, p.partition): future.result(timeout=REQUEST_S).offset
            for p, future in admin.list_offsets({p: OffsetSpec.earliest() for p in partitions}).items()
        }
        answer = next(iter(admin.list_consumer_group_offsets([request]).values())).result(timeout=REQUEST_S)
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap}: {error.args[0].str()}") from error
    committed = {(p.topic, p.partition): p.offset for p in answer.topic_partitions}
    return sum(max(0, end - max(committed.get(key, -1), starts[key])) for key, end in ends.items())


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient(connection(bootstrap, "ratchet-admin"))


def _new(topic: Topic, replication: int) -> NewTopic:
    config = {"max.message.bytes": str(record_limit(topic.name) + 64 * 1024)}
    if topic.compacted:
        # state is small and read from the beginning by every gateway: compact early
        config |= {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
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

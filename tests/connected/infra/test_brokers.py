"""The brokers that the connected tests run on: the embedded one and a real Kafka behave alike here."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from ratchet.infra.embedded.broker import BrokerProbe


def test_a_record_comes_back_with_key_value_and_headers(kafka: Any) -> None:
    """Create a topic, produce, consume in a group, commit."""
    topic = f"test.{uuid4()}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])[topic].result(20)
    # the embedded broker knows no InitProducerId
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": not kafka.embedded})
    producer.produce(topic, key=b"k", value=b"v", headers={"h": b"1"})
    assert producer.flush(20) == 0
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # the embedded broker lets a group's first member wait for half of this
            "session.timeout.ms": 6_000,
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None
        assert (message.error(), message.key(), message.value(), message.headers()) == (None, b"k", b"v", [("h", b"1")])
        (position,) = consumer.commit(message, asynchronous=False)
        assert (position.topic, position.offset) == (topic, 1)
    finally:
        consumer.close()


def test_the_probe_sees_a_broker(kafka: Any) -> None:
    """What the supervisor waits for."""
    assert BrokerProbe(kafka.bootstrap)()

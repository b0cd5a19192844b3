"""What every Kafka client of the loop has in common: connection, group names, record sizes."""

from __future__ import annotations

import logging
from typing import Any

from ratchet.schemas.topics import DEAD_LETTER

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""The largest event: long contexts with tools pass Kafka's default of 1 MB."""

MAX_DEAD_BYTES = 12 * 1024 * 1024
"""The largest dead letter: the largest event in base64, with room for the reason."""

log = logging.getLogger("ratchet.kafka")
client_log = logging.getLogger("ratchet.kafka.client")
"""What librdkafka itself says."""


def _news(record: logging.LogRecord) -> bool:
    """Whether a line of librdkafka is news.

    It reports every refused connection of every client several times a second; that the
    broker is away is said once by whoever depends on it.
    """
    text = record.getMessage()
    return not text.startswith("FAIL ") or ("Connection refused" not in text and "Disconnected" not in text)


client_log.addFilter(_news)


def record_limit(topic: str) -> int:
    """The bytes that one record's value may have on ``topic``."""
    return MAX_DEAD_BYTES if topic == DEAD_LETTER.name else MAX_RECORD_BYTES


def group_id(group: str) -> str:
    """The Kafka group id of a consumer group of the topic table: ``ratchet.<group>``.

    The prefix keeps a Kafka that is shared with other products free of clashes.
    """
    return f"ratchet.{group}"


def connection(bootstrap: str, client_id: str) -> dict[str, Any]:
    """Settings of librdkafka that producers, consumers and admin clients share.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        client_id: what the broker's log calls this client.
    """
    return {
        "bootstrap.servers": bootstrap,
        "client.id": client_id,
        "reconnect.backoff.ms": 100,
        # a broker that was restarted is found again within seconds, not ten
        "reconnect.backoff.max.ms": 2_000,
        "socket.keepalive.enable": True,
        # brokers close idle connections by design: no news
        "log.connection.close": False,
        "logger": client_log,
    }


def consumer(bootstrap: str, group: str, client_id: str) -> dict[str, Any]:
    """Settings of a consumer that acknowledges by its own hand and starts at the oldest record.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        group: the full group id (see `group_id`).
        client_id: what the broker's log calls this client.
    """
    return connection(bootstrap, client_id) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # a group without an offset, or with one that the broker no longer has, loses nothing
        "auto.offset.reset": "earliest",
        # after how long a dead member's partitions go to another one; the embedded broker also
        # keeps a new member waiting the longer, the longer this is
        "session.timeout.ms": 10_000,
        "allow.auto.create.topics": False,
        # a topic that is created, or comes back, is found within seconds
        "topic.metadata.refresh.interval.ms": 5_000,
        # a fetch returns as soon as there is a record; idle ones cost the embedded broker a core's tenth if shorter
        "fetch.wait.max.ms": 500,
        # prefetched records count as this process's memory
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.message.max.bytes": 1024 * 1024,
    }

"""Kafka records to rows: the one way, whether ingest reads them for the first time or a rebuild once more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Message

from ratchet.consumers.rules.decode import line
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.topics import TOPICS, Partition

GROUP = "ingest"
CARRIED: dict[str, tuple[str, ...]] = {topic.name: topic.events for topic in TOPICS if GROUP in topic.groups}
"""The topics that end up in ClickHouse, and the events that each carries."""


@dataclass
class Taken:
    """What came of some records: rows by table, records that are no events with the reason, and the last offsets."""

    rows: list[tuple[str, bytes]] = field(default_factory=list)
    bad: list[tuple[Message, str]] = field(default_factory=list)
    passed: dict[Partition, int] = field(default_factory=dict)


def take(messages: Iterable[Message], carried: Mapping[str, tuple[str, ...]] = CARRIED) -> Taken:
    """Decode records of the topics in ``carried``; none of them may be an error."""
    taken = Taken()
    for message in messages:
        topic, raw = str(message.topic()), message.value()
        taken.passed[topic, int(message.partition() or 0)] = int(message.offset() or 0)
        if raw is None:
            continue  # a tombstone: compaction removed the key
        try:
            stored = line(raw, carried[topic])
        except InvalidEvent as error:
            taken.bad.append((message, str(error)))
            continue
        if stored is not None:
            taken.rows.append(stored)
    return taken


def where(message: Message) -> str:
    """Where a record lies, for messages."""
    return f"{message.topic()} partition {message.partition()} offset {message.offset()}"

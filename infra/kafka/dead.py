"""Dead letters: the event that keeps a record which is no event, and back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Protocol

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from ratchet.infra.clock import now
from ratchet.infra.kafka.config import MAX_RECORD_BYTES, log
from ratchet.infra.kafka.publisher import Publisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import DeadLetter, parse
from ratchet.schemas.ids import derived_id
from ratchet.schemas.topics import DEAD_LETTER

MAX_REASON = 2_000
"""Characters; a message with a thousand wrong fields needs no thousand reasons."""


class _Record(Protocol):
    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | str | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...


def dead_letter(record: _Record, reason: str) -> DeadLetter:
    """Keep a Kafka record that could not be used, with its bytes and the reason.

    The id derives from where the record lies, so reading it twice makes one dead letter. A
    value larger than any event may be is cut, and the reason says so.
    """
    topic, partition, offset = str(record.topic()), int(record.partition() or 0), int(record.offset() or 0)
    kind, at_ms = record.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE or at_ms < 0:
        at_ms = int(now().timestamp() * 1000)
    key, value = record.key(), record.value() or b""
    if len(reason) > MAX_REASON:
        reason = reason[: MAX_REASON - 1] + "…"
    if len(value) > MAX_RECORD_BYTES:
        reason = f"{reason} (the first {MAX_RECORD_BYTES} of {len(value)} bytes are kept)"
        value = value[:MAX_RECORD_BYTES]
    return DeadLetter(
        id=derived_id(at_ms, topic, str(partition), str(offset)),
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        topic=topic,
        partition=partition,
        offset=offset,
        key=key.decode(errors="replace") if isinstance(key, bytes) else key,
        reason=reason,
        value_base64=base64.b64encode(value).decode(),
    )


def read_dead_letters(bootstrap: str) -> list[DeadLetter]:
    """Every dead letter that Kafka still has, oldest first, each once however often it was written.

    Raises:
        BrokerError: Kafka is away.
    """
    letters: dict[str, DeadLetter] = {}
    for record in read_all(bootstrap, DEAD_LETTER.name):
        if record.value is None:
            continue
        try:
            letter = parse(DeadLetter, record.value)
        except InvalidEvent as error:
            log.warning("%s offset %d is no dead letter: %s", record.topic, record.offset, error)
            continue
        letters.setdefault(letter.id, letter)
    return list(letters.values())


def replay(letters: list[DeadLetter], publisher: Publisher, timeout_s: float = 30.0) -> int:
    """Publish the letters' bytes again to where they came from, with their keys; returns how many.

    What is still no event comes back as a dead letter; what is one by now is stored, once.

    Raises:
        BrokerError: some were not delivered within ``timeout_s`` seconds.
    """
    for letter in letters:
        publisher.send(letter.topic, letter.key.encode() if letter.key is not None else None, original(letter))
    if left := publisher.flush(timeout_s):
        raise BrokerError(f"{left} of {len(letters)} messages were not delivered within {timeout_s:g} s; replay again")
    return len(letters)


def original(letter: DeadLetter) -> bytes:
    """The bytes of the record that became this dead letter."""
    return base64.b64decode(letter.value_base64)

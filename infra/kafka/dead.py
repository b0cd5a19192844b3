"""Dead letters: the event that keeps a record which is no event, and back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Protocol

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from ratchet.infra.clock import now
from ratchet.schemas.events import DeadLetter
from ratchet.schemas.ids import derived_id


class _Record(Protocol):
    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | str | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...


def dead_letter(record: _Record, reason: str) -> DeadLetter:
    """Keep a Kafka record that could not be used, with its bytes and the reason.

    The id derives from where the record lies, so reading it twice makes one dead letter.
    """
    topic, partition, offset = str(record.topic()), int(record.partition() or 0), int(record.offset() or 0)
    kind, at_ms = record.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE or at_ms < 0:
        at_ms = int(now().timestamp() * 1000)
    key = record.key()
    return DeadLetter(
        id=derived_id(at_ms, topic, str(partition), str(offset)),
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        topic=topic,
        partition=partition,
        offset=offset,
        key=key.decode(errors="replace") if isinstance(key, bytes) else key,
        reason=reason,
        value_base64=base64.b64encode(record.value() or b"").decode(),
    )


def original(letter: DeadLetter) -> bytes:
    """The bytes of the record that became this dead letter."""
    return base64.b64decode(letter.value_base64)

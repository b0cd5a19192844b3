"""Dead letters: the event that keeps a record which is no event, and back."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from ratchet.infra.clock import now
from ratchet.infra.kafka.config import MAX_RECORD_BYTES, log
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import DeadLetter
from ratchet.schemas.ids import derived_id
from ratchet.schemas.topics import DEAD_LETTER

MAX_REASON = 2_000
"""Characters; a message with a thousand wrong fields needs no thousand reasons."""
REPLAYED = "ratchet-dead-letter"
"""Header of a record that was sent again: the id of its dead letter, which it keeps if it is no event still."""


class _Record(Protocol):
    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | str | None: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def headers(self) -> list[tuple[str, bytes | str | None]] | None: ...


class Sender(Protocol):
    """What replaying needs of a publisher."""

    def send(self, topic: str, key: bytes | None, value: bytes, *, headers: Mapping[str, bytes] | None = None) -> None:
        """Hand over one record with its headers; errors as `Publisher.send`."""

    def flush(self, timeout_s: float) -> int:
        """Wait for deliveries and return how many records are still undelivered."""


def dead_letter(record: _Record, reason: str) -> DeadLetter:
    """Keep a Kafka record that could not be used, with its bytes and the reason.

    The id derives from where the record lies, so reading it twice makes one dead letter; a record
    that was replayed keeps the id that it had. A value larger than any event may be is cut, and
    the reason says so.
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
        id=_replayed(record) or derived_id(at_ms, topic, str(partition), str(offset)),
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        topic=topic,
        partition=partition,
        offset=offset,
        key=key.decode(errors="replace") if isinstance(key, bytes) else key,
        reason=reason,
        value_base64=base64.b64encode(value).decode(),
    )


def read_dead_letters(bootstrap: str) -> list[DeadLetter]:
    """Every dead letter that Kafka still has, oldest first, each once however often it was written or replayed.

    A letter that was replayed in vain says where it lay, and why it is no event, the last time.

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
        letters[letter.id] = letter
    return list(letters.values())


def replay(letters: list[DeadLetter], publisher: Sender, timeout_s: float = 30.0) -> int:
    """Publish the letters' bytes again to where they came from, with their keys; returns how many.

    What is still no event comes back as the same dead letter; what is one by now is stored, once.

    Raises:
        BrokerError: some were not delivered within ``timeout_s`` seconds.
    """
    for letter in letters:
        key = letter.key.encode() if letter.key is not None else None
        publisher.send(letter.topic, key, original(letter), headers={REPLAYED: letter.id.encode()})
    if left := publisher.flush(timeout_s):
        raise BrokerError(f"{left} of {len(letters)} messages were not delivered within {timeout_s:g} s; replay again")
    return len(letters)


def original(letter: DeadLetter) -> bytes:
    """The bytes of the record that became this dead letter."""
    return base64.b64decode(letter.value_base64)


def _replayed(record: _Record) -> str | None:
    """The id of the dead letter that this record was replayed from, if it says one; anybody may write headers."""
    given = dict(record.headers() or []).get(REPLAYED)
    try:
        return str(uuid.UUID(given.decode() if isinstance(given, bytes) else given)) if given else None
    except ValueError:
        return None

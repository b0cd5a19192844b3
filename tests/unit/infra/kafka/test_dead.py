"""Dead letters and back-off, without a broker."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.kafka.backoff import backoff_s
from ratchet.infra.kafka.config import MAX_RECORD_BYTES, record_limit
from ratchet.infra.kafka.dead import dead_letter, original, replay
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.topics import DEAD_LETTER


@dataclass
class Raw:
    """A record as librdkafka gives it."""

    the_value: bytes | None = b"rubbish"
    the_offset: int = 7
    the_key: bytes | None = b"k"
    kind: int = TIMESTAMP_CREATE_TIME
    the_headers: list[tuple[str, bytes]] | None = None

    def topic(self) -> str:
        return "ratchet.feedback"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self.the_offset

    def key(self) -> bytes | None:
        return self.the_key

    def value(self) -> bytes | None:
        return self.the_value

    def timestamp(self) -> tuple[int, int]:
        return self.kind, 1_790_000_000_000

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self.the_headers


def test_reading_a_record_twice_makes_one_dead_letter() -> None:
    """The id derives from the record's place; another place has another id."""
    assert dead_letter(Raw(), "why").id == dead_letter(Raw(), "why").id
    assert dead_letter(Raw(), "why").id != dead_letter(Raw(the_offset=8), "why").id


def test_a_replayed_record_that_is_no_event_still_is_the_same_dead_letter() -> None:
    """Replaying in vain, however often, makes no second letter; a header that is no id means nothing."""
    first = dead_letter(Raw(), "why")
    publisher = MemoryPublisher()
    replay([first], publisher)
    again = dead_letter(Raw(the_offset=9, the_headers=list(publisher.headers[0].items())), "why still")
    assert again.id == first.id
    assert dead_letter(Raw(the_headers=[("ratchet-dead-letter", b"rubbish \xff")]), "why").id == first.id


@given(st.binary(max_size=500))
def test_the_bytes_come_back(value: bytes) -> None:
    """Whatever the bytes were, the dead letter gives them back."""
    assert original(dead_letter(Raw(value), "why")) == value


def test_a_record_without_a_time_gets_the_present_one() -> None:
    """Brokers may store no time; the dead letter has one all the same."""
    assert dead_letter(Raw(kind=TIMESTAMP_NOT_AVAILABLE), "why").at.year >= 2026


def test_the_largest_dead_letter_fits_its_topic() -> None:
    """A value beyond the limit is cut with a note, so that burying it cannot fail for its size."""
    letter = dead_letter(Raw(bytes(MAX_RECORD_BYTES + 5)), "x" * 10_000)
    assert len(original(letter)) == MAX_RECORD_BYTES
    assert f"of {MAX_RECORD_BYTES + 5} bytes are kept" in letter.reason
    assert len(letter.to_bytes()) <= record_limit(DEAD_LETTER.name)


def test_replay_sends_the_bytes_to_their_topic_with_their_key() -> None:
    """What is sent again is the record as it was, key or none."""
    publisher = MemoryPublisher()
    assert replay([dead_letter(Raw(), "a"), dead_letter(Raw(the_key=None), "b")], publisher) == 2
    assert publisher.records == [("ratchet.feedback", b"k", b"rubbish"), ("ratchet.feedback", None, b"rubbish")]


def test_replay_with_the_broker_away_says_so() -> None:
    """Undelivered messages are an error with their number, not a success."""
    publisher = MemoryPublisher()
    publisher.away = True
    with pytest.raises(BrokerError, match="1 of 1 messages were not delivered"):
        replay([dead_letter(Raw(), "a")], publisher, timeout_s=0)


@given(st.integers(1, 10_000))
def test_backoff_grows_and_is_bounded(attempt: int) -> None:
    """Every wait is at least the one before it and never longer than the bound."""
    assert backoff_s(attempt) <= backoff_s(attempt + 1) <= 30.0
    assert backoff_s(1) == 0.25

"""Positions in topics, and why a rebuild is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.taking import CARRIED
from ratchet.schemas.errors import RebuildError
from ratchet.services.rules.rebuilding import Compared, Position, position, refusal, unexpected

TOPIC = "ratchet.inference"


@given(st.integers(0, 10**6), st.integers(0, 10**12))
def test_a_position_names_partition_and_offset(partition: int, offset: int) -> None:
    """What a person wrote is what is meant, and covers that partition alone."""
    found = position(f"{TOPIC}:{partition}:{offset}", CARRIED)
    assert (found.topic, found.partition, found.offset, found.since) == (TOPIC, partition, offset, None)
    assert found.covers((TOPIC, partition))
    assert not found.covers((TOPIC, partition + 1))


def test_a_position_may_be_a_time_or_a_whole_topic() -> None:
    """Of one partition or of all of them."""
    at = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert position(f"{TOPIC}@2026-11-01T12:00:00Z", CARRIED) == Position(
        f"{TOPIC}@2026-11-01T12:00:00Z", TOPIC, since=at
    )
    assert position(f"{TOPIC}:2@2026-11-01T14:00:00+02:00", CARRIED).since == at
    assert position(TOPIC, CARRIED).covers((TOPIC, 5))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ratchet.dead-letter", "no topic 'ratchet.dead-letter' ends up in ClickHouse; allowed: ratchet.inference"),
        (f"{TOPIC}:x", "is no position; allowed: TOPIC"),
        (f"{TOPIC}:1:2@2026-11-01T12:00:00Z", "is no position"),
        (f"{TOPIC}@2026-11-01T12:00:00", "is no time; allowed: RFC 3339 with a zone"),
        ("", "is no position"),
    ],
)
def test_what_is_no_position_is_refused_with_what_is_allowed(text: str, says: str) -> None:
    """Before anything is read."""
    with pytest.raises(RebuildError) as caught:
        position(text, CARRIED)
    assert says in str(caught.value)


def test_rows_that_a_brief_topic_let_go_of_refuse_nothing() -> None:
    """What gateways said of themselves a week ago is in ClickHouse alone by design; anything else is missed."""
    said = Compared("gateways", 9, 4, older=5, topics=("ratchet.gateway",))
    rollouts = Compared("rollouts", 7, 1, older=6, topics=("ratchet.rollout",))
    derived = Compared("pairs", 2, 1, older=1)
    assert unexpected([said, rollouts, derived]) == [rollouts, derived]
    assert unexpected([said]) == []


def test_a_refusal_names_rows_times_topics_and_what_to_do() -> None:
    """Each view with its reason: emptied, cut off at an offset, compacted, or not there for another reason."""
    at = datetime(2026, 11, 1, 12, tzinfo=UTC)
    lost = [
        Compared("inferences", 9, 4, older=5, first=at, last=at, topics=(TOPIC,)),
        Compared("rollouts", 7, 1, older=6, topics=("ratchet.rollout",)),
        Compared("scores", 2, 1, older=1, topics=("ratchet.score",)),
        Compared("feedback", 3, 0, older=3, topics=("ratchet.feedback",)),
    ]
    held = {
        (TOPIC, 0): range(0, 7),
        (TOPIC, 3): range(41, 50),
        ("ratchet.rollout", 0): range(0, 3),
        ("ratchet.score", 0): range(0, 3),
        ("ratchet.feedback", 0): range(12, 12),
    }
    text = refusal(lost, held)
    assert "5 of 9 in inferences (2026-11-01T12:00:00Z to 2026-11-01T12:00:00Z)" in text
    assert f"because {TOPIC} begins at offset 41 (partition 3)" in text
    assert "6 of 7 in rollouts, because ratchet.rollout is compacted" in text
    assert "ratchet.score does not hold them" in text
    assert "ratchet.feedback is empty" in text
    assert text.startswith("nothing was changed")
    assert text.endswith("--keep-older carries them over into the rebuilt tables")

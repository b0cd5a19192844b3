"""What events refuse, and that the refusal names field, value and what is allowed."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas import publish
from ratchet.schemas.decoding import EVENTS, parse, parse_any
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Feedback, Score
from ratchet.schemas.ids import ADAPTER_NAME, adapter_name, derived_id, uuid7

GOLDEN = Path(publish.__file__).parent / "golden"


def golden(name: str, **changes: Any) -> bytes:
    """The golden message with some fields changed."""
    return json.dumps(json.loads((GOLDEN / f"{name}.json").read_text()) | changes).encode()


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("inference.v1", {"surprise": 1}, "surprise: Extra inputs are not permitted (got 1)"),
        ("inference.v1", {"at": "2026-11-01T12:00:00"}, "a time without zone; allowed: RFC 3339"),
        ("inference.v1", {"id": "7"}, "id: allowed: a UUIDv7 in text form (got '7')"),
        ("inference.v1", {"id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"}, "a UUIDv7 in text form (got 'f47ac10b"),
        ("inference.v1", {"adapter": "../etc"}, "adapter: allowed: 'base' or <task>@v<number>-<8 hex digits> (got '"),
        ("inference.v1", {"request": {"params": {}}}, "exactly one of messages, prompt"),
        ("inference.v1", {"stage": "shadow"}, "stage: Input should be 'stable', 'canary'"),
        (
            "feedback.v1",
            {"kind": "thumb", "value": "up"},
            "value 'up' does not fit kind 'thumb'; allowed: true or false",
        ),
        ("feedback.v1", {"kind": "rating", "value": 4}, "allowed: a number from 0 to 1"),
        ("feedback.v1", {"kind": "preference", "value": "this"}, "compared_with goes with kind 'preference'"),
        ("score.v1", {"score": None}, "a score has a value from 0 to 1, or verdict 'abstain'"),
        ("rollout.v1", {"weight_bp": 10_001}, "weight_bp: Input should be less than or equal to 10000 (got 10001)"),
    ],
)
def test_a_bad_field_is_named_with_its_value(name: str, changes: dict[str, Any], says: str) -> None:
    """Each refusal names the field, what was wrong and what is allowed."""
    with pytest.raises(InvalidEvent) as caught:
        parse(EVENTS[name], golden(name, **changes))
    assert says in str(caught.value)


def test_an_unknown_schema_is_refused_with_those_that_are_carried() -> None:
    """A topic accepts only the schemas its table names."""
    with pytest.raises(InvalidEvent, match=r"'feedback.v2' is not carried here; allowed: feedback.v1"):
        parse_any(golden("feedback.v1", schema="feedback.v2"), ("feedback.v1",))


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_invalid(raw: bytes) -> None:
    """No bytes make the parser raise anything but InvalidEvent."""
    with contextlib.suppress(InvalidEvent):
        parse_any(raw, tuple(EVENTS))


def test_a_judge_may_abstain_but_not_score_nothing() -> None:
    """An abstention has no score; the verdict says so."""
    event = parse(Score, golden("score.v1", score=None, verdict="abstain"))
    assert event.score is None


def test_events_are_frozen() -> None:
    """Nobody changes an event after it was made."""
    event = parse(Feedback, golden("feedback.v1"))
    with pytest.raises(ValueError, match="frozen"):
        event.kind = "thumb"  # type: ignore[misc]


@given(st.integers(0, 2**48 - 1), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_derived_ids_are_uuid7_and_repeatable(unix_ms: int, parts: list[str]) -> None:
    """The same time and parts give the same UUIDv7; other parts give another."""
    one = derived_id(unix_ms, *parts)
    assert one == derived_id(unix_ms, *parts)
    assert one != derived_id(unix_ms, *parts, "more")
    assert one[14] == "7"
    assert int(one.replace("-", "")[:12], 16) == unix_ms


def test_uuid7_sorts_by_time() -> None:
    """Ids made later sort later, whatever their randomness."""
    assert uuid7(1, b"\xff" * 10) < uuid7(2, b"\x00" * 10)


def test_adapter_names_carry_number_and_weights() -> None:
    """An adapter's name is its task, number and the hash of its weights, and nothing else passes."""
    assert adapter_name("support", 3, "1a2b3c4d" + "0" * 56) == "support@v3-1a2b3c4d"
    assert not ADAPTER_NAME.match("support@v0-1a2b3c4d")
    with pytest.raises(ValueError, match="allowed"):
        adapter_name("Support", 1, "1a2b3c4d")

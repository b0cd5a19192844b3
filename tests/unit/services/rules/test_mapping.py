"""Import maps: records to events."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.schemas.decoding import parse
from ratchet.schemas.events import Feedback, Inference
from ratchet.services.rules.mapping import BadRecord, Map, map_record

VOTES = {"from": "{vote}", "lookup": {"1": "this", "2": "other", "0": "tie"}}
PAIRS: dict[str, Any] = {
    "task": "support",
    "key": "{id}",
    "time": {"start": datetime(2024, 1, 1, tzinfo=UTC), "step_s": 60},
    "inference": [
        {"name": "a", "prompt": "{question}", "content": "{first}", "conversation_id": {"hash": "{question}"}},
        {"name": "b", "prompt": "{question}", "content": "{second}", "tags": {"from": "{origin}"}},
    ],
    "feedback": [{"inference": "a", "compared_with": "b", "kind": "preference", "value": VOTES, "user": "u{id}"}],
}
RECORD = {"id": 7, "question": "why?", "first": True, "second": "no", "vote": 2, "origin": 5}


def _map(**changes: Any) -> Map:
    return Map.model_validate(PAIRS | changes)


def test_record_becomes_inferences_and_feedback_on_them() -> None:
    """Two answers and a vote become two inferences and a preference between their ids."""
    first, second, vote = map_record(_map(), RECORD, 2)
    assert isinstance(first, Inference)
    assert isinstance(second, Inference)
    assert isinstance(vote, Feedback)
    assert first.at == datetime(2024, 1, 1, 0, 2, tzinfo=UTC)
    assert first.response is not None
    assert (first.response.content, first.source, first.request.prompt) == ("true", "import", "why?")
    assert second.tags == {"from": "5"}
    assert (vote.inference_id, vote.compared_with, vote.value, vote.user) == (first.id, second.id, "other", "u7")


def test_same_record_gives_the_same_ids_and_another_record_others() -> None:
    """Ids follow from the record's key, so a second import adds nothing."""
    again = [event.id for event in map_record(_map(), RECORD, 2)]
    assert again == [event.id for event in map_record(_map(), RECORD, 2)]
    assert not set(again) & {event.id for event in map_record(_map(), RECORD | {"id": 8}, 2)}


def test_without_a_key_the_content_identifies_a_record() -> None:
    """Two records that differ anywhere are different events when the map names no key."""
    mapping = _map(key=None)
    one = {event.id for event in map_record(mapping, RECORD, 0)}
    assert one == {event.id for event in map_record(mapping, dict(reversed(RECORD.items())), 0)}
    assert not one & {event.id for event in map_record(mapping, RECORD | {"extra": 1}, 0)}


def test_feedback_is_left_out_where_its_condition_is_empty() -> None:
    """`when` names a field; without it, or with an empty one, the feedback is not made."""
    said = [{"inference": "a", "kind": "comment", "value": "{note}", "when": "{note}"}]
    mapping = _map(feedback=said)
    assert len(map_record(mapping, RECORD, 0)) == 2
    assert len(map_record(mapping, RECORD | {"note": ""}, 0)) == 2
    assert len(map_record(mapping, RECORD | {"note": "good"}, 0)) == 3


@pytest.mark.parametrize("value", ["2024-05-01T00:00:00Z", 1714521600, 1714521600000, "2024-05-01T02:00:00+02:00"])
def test_time_comes_from_a_field(value: object) -> None:
    """RFC 3339, seconds and milliseconds all name the same instant."""
    mapping = _map(time={"field": "{created}"})
    assert map_record(mapping, RECORD | {"created": value}, 9)[0].at == datetime(2024, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vote": 3}, "'3'"),
        ({"question": {"x": 1}}, "prompt"),
        ({"first": None}, None),
    ],
)
def test_bad_record_is_refused_with_its_reason(change: dict[str, Any], named: str | None) -> None:
    """A value that fits no event names the field or the value; an absent answer is no error."""
    if named is None:
        assert map_record(_map(), RECORD | change, 0)
        return
    with pytest.raises(BadRecord, match=named):
        map_record(_map(), RECORD | change, 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"feedback": [{"inference": "z", "kind": "thumb", "value": True}]}, "'z'"),
        ({"inference": [PAIRS["inference"][0]] * 2}, "repeat"),
        ({"inference": [], "feedback": []}, "no event"),
        ({"time": {}}, "exactly one"),
        ({"time": {"start": datetime(2024, 1, 1)}}, "zone"),
        ({"key": "{"}, "brace"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_bad_map_is_refused(change: dict[str, Any], named: str) -> None:
    """A wrong map is refused before any record is read, naming what is wrong."""
    with pytest.raises(ValidationError, match=named):
        _map(**change)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["id", "question", "first", "second", "vote", "origin", "created"])


@given(JSON | st.dictionaries(FIELDS, JSON, max_size=7), st.integers(0, 10**6), st.booleans())
def test_any_record_gives_valid_events_or_a_reason(record: Any, index: int, timed: bool) -> None:
    """Whatever the record, the result is events that survive the wire, or one BadRecord with a reason."""
    mapping = _map(time={"field": "{created}"}) if timed else _map()
    try:
        events = map_record(mapping, record, index)
    except BadRecord as error:
        events = []
        reason = str(error)
    else:
        reason = "none needed"
    assert reason
    for event in events:
        assert parse(type(event), event.to_bytes()) == event
        assert json.loads(event.to_bytes())["source"] == "import"

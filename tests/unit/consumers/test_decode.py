"""Bytes to rows, or to a reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.decode import UINT32_MAX, line, plain
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Inference, Request, Training
from ratchet.schemas.ids import uuid7
from ratchet.schemas.rollout_events import Operator
from ratchet.schemas.rows import row
from ratchet.schemas.topics import INFERENCE, ROLLOUT, TRAINING

ID = uuid7(1_790_000_000_000, bytes(10))
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def inference(**fields: Any) -> dict[str, Any]:
    """A valid inference as JSON has it, changed by ``fields``."""
    event = Inference(
        id=ID,
        at=AT,
        task="t",
        adapter="base",
        base_model="m",
        request=Request(prompt="hello"),
        status="ok",
        latency_ms=1,
        source="http",
        stage="stable",
    )
    return json.loads(event.to_bytes()) | fields


def row_or_reason(raw: bytes) -> object:
    """The row that would be stored, or the reason why there is none; any other error goes through."""
    try:
        stored = line(raw, INFERENCE.events)
    except InvalidEvent as error:
        return str(error)
    return stored is not None and orjson.loads(stored[1])


def test_an_event_becomes_its_table_and_line() -> None:
    """Fields in any order: the line is one JSON object of the row, without a line feed in it."""
    shuffled = dict(reversed(inference().items()))
    table, text = line(orjson.dumps(shuffled), INFERENCE.events) or ("", b"")
    assert table == "inferences_log"
    assert b"\n" not in text
    assert orjson.loads(text)["at"] == "2026-11-01 12:00:00.000000"
    assert plain(text) == text


def test_an_event_as_ratchet_writes_it_is_its_own_line() -> None:
    """The bytes that came are stored with what the table adds; built anew they give the row of the event."""
    event = Inference.model_validate(inference())
    table, text = line(event.to_bytes(), INFERENCE.events) or ("", b"")
    assert table == "inferences_log"
    assert text.startswith(event.to_bytes()[:-1])
    assert (table, orjson.loads(plain(text))) == row(event)


def test_an_event_without_its_schema_is_none() -> None:
    """The version must be said, even where a topic carries one alone."""
    value = inference()
    del value["schema"]
    with pytest.raises(InvalidEvent, match="schema: None is not carried here"):
        line(orjson.dumps(value), INFERENCE.events)


def test_an_event_that_no_table_keeps_has_no_line() -> None:
    """An operator's instruction is valid and is stored nowhere by itself."""
    event = Operator(id=ID, at=AT, task="t", verb="pause", who="me")
    assert line(event.to_bytes(), ROLLOUT.events) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt_tokens": UINT32_MAX + 1}, "prompt_tokens: 4294967296 cannot be stored"),
        ({"completion_tokens": 10**30}, "completion_tokens"),
        ({"at": "0001-01-01T00:00:00Z"}, "at: the year 1 cannot be stored; allowed: 1970 to 2299"),
        ({"at": "9999-01-01T00:00:00Z"}, "at: the year 9999"),
        ({"schema": "inference.v2"}, "schema"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_would_be_stored_falsely_is_refused_by_field(fields: dict[str, Any], reason: str) -> None:
    """ClickHouse wraps integers and cuts times without a word, so such an event gets a reason instead of a row."""
    with pytest.raises(InvalidEvent, match=reason):
        line(json.dumps(inference(**fields)).encode(), INFERENCE.events)


def test_training_steps_have_the_same_bound() -> None:
    """A training event's counters are columns too."""
    event = Training(id=ID, at=AT, task="t", job_id=ID, state="progress", step=UINT32_MAX + 1, steps=1)
    with pytest.raises(InvalidEvent, match="step: "):
        line(event.to_bytes(), TRAINING.events)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_row_or_a_reason(raw: bytes) -> None:
    """No input ends in another error than InvalidEvent: one would stop the consumer for ever."""
    with pytest.raises(InvalidEvent):
        line(raw, INFERENCE.events)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(inference())), JSON)
def test_any_value_in_any_field_gives_a_row_or_a_reason(field: str, value: Any) -> None:
    """Whatever JSON stands in a field, the result is a storable line or a reason."""
    raw = json.dumps(inference(**{field: value})).encode()
    assert row_or_reason(raw)


@given(JSON)
def test_free_form_fields_bear_any_json(value: Any) -> None:
    """Parameters and messages are free-form: huge integers and odd texts in them end in a row or a reason too."""
    request = {"messages": [{"role": "user", "content": value}], "params": {"x": value}}
    assert row_or_reason(json.dumps(inference(request=request)).encode())

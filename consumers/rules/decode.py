"""Bytes of a record to the row that ClickHouse stores, or the reason why there is none.

An inference or shadow event, the bulk of all traffic, is stored as the bytes that came, with what
the table adds appended: after validation its fields are the table's columns, and building a row
out of Python objects costs several times the validation. Whatever is written unusually (see
`_as_it_came`) goes the long way, and so does what ClickHouse refuses (`plain`).
"""

from __future__ import annotations

import orjson

from ratchet.schemas.decoding import EVENTS, parse, parse_any
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Event, Inference, Shadow, Training
from ratchet.schemas.rows import TABLES, prompt_hash, row

UINT32_MAX = 2**32 - 1
FIRST_YEAR, LAST_YEAR = 1970, 2299
_ADDED = ("prompt_hash", "content")
_FILLED = {"tenant", "stage"}
"""Fields whose default the column does not have."""


def line(raw: bytes, allowed: tuple[str, ...]) -> tuple[str, bytes] | None:
    """Decode an event and give its table and its JSONEachRow line; None for events that no table keeps.

    Args:
        raw: the record's value.
        allowed: the schemas that its topic carries.

    Returns:
        Table and line.

    Raises:
        InvalidEvent: no event of these schemas, or one that ClickHouse could only store falsely.
    """
    event = parse_any(raw, allowed)
    if problem := unstorable(event):
        raise InvalidEvent(problem)
    try:
        if isinstance(event, Inference | Shadow) and _as_it_came(raw, event):
            content = event.response.content if event.response is not None else None
            added = b',"prompt_hash":"%b","content":%b}' % (prompt_hash(event.request).encode(), orjson.dumps(content))
            return TABLES[event.schema_], raw[:-1] + added
        stored = row(event)
        return None if stored is None else (stored[0], orjson.dumps(stored[1]))
    except TypeError as error:
        # integers beyond 64 bits inside free-form fields are JSON, but no column's value
        raise InvalidEvent(f"cannot be stored: {error}") from None


def plain(line: bytes) -> bytes:
    """Turn a line that is an event's own bytes into the row that `row` makes of it; others stay as they are.

    For what ClickHouse refuses and JSON allows, such as a field that is there twice.
    """
    value = orjson.loads(line)
    if not isinstance(value.get("request"), dict):
        return line  # a row has it as text
    event = {name: item for name, item in value.items() if name not in _ADDED}
    stored = row(parse(EVENTS[value["schema"]], orjson.dumps(event)))
    assert stored is not None
    return orjson.dumps(stored[1])


def _as_it_came(raw: bytes, event: Inference | Shadow) -> bool:
    """Whether the bytes are written as `Event.to_bytes` writes them: id, then a calendar time, nothing left out.

    A time may also be a number of seconds, which ClickHouse would read otherwise.
    """
    usual = raw[:7] == b'{"id":"' and raw[43:51] == b'","at":"' and raw[55:56] == b"-"
    return usual and raw[-1:] == b"}" and event.model_fields_set >= _FILLED


def unstorable(event: Event) -> str | None:
    """Name the field that ClickHouse would store as another value than the event has.

    Its UInt32 wraps around silently, and its DateTime64 ends in the year 2299.
    """
    if not FIRST_YEAR <= event.at.year <= LAST_YEAR:
        return f"at: the year {event.at.year} cannot be stored; allowed: {FIRST_YEAR} to {LAST_YEAR}"
    match event:
        case Inference() | Shadow():
            counts = {"prompt_tokens": event.prompt_tokens, "completion_tokens": event.completion_tokens}
        case Training():
            counts = {"step": event.step or 0, "steps": event.steps or 0}
        case _:
            return None
    for field, count in counts.items():
        if count > UINT32_MAX:
            return f"{field}: {count} cannot be stored; allowed: up to {UINT32_MAX}"
    return None

"""Bytes of a record to the row that ClickHouse stores, or the reason why there is none."""

from __future__ import annotations

import orjson

from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Event, Inference, Shadow, Training, parse_any
from ratchet.schemas.rows import row

UINT32_MAX = 2**32 - 1
FIRST_YEAR, LAST_YEAR = 1970, 2299


def line(raw: bytes, allowed: tuple[str, ...]) -> tuple[str, bytes] | None:
    """Decode an event and give its table and its JSONEachRow line; None for events that no table keeps.

    Args:
        raw: the record's value.
        allowed: the schemas that its topic carries.

    Raises:
        InvalidEvent: no event of these schemas, or one that ClickHouse could only store falsely.
    """
    event = parse_any(raw, allowed)
    if problem := unstorable(event):
        raise InvalidEvent(problem)
    try:
        stored = row(event)
        return None if stored is None else (stored[0], orjson.dumps(stored[1]))
    except TypeError as error:
        # integers beyond 64 bits inside free-form fields are JSON, but no column's value
        raise InvalidEvent(f"cannot be stored: {error}") from None


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

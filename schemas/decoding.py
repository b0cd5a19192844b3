"""From bytes to events: one table of all kinds, and errors that name the field, the problem and what is allowed."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import ValidationError

from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Adapter, DeadLetter, Event, Feedback, Inference, Score, Shadow, Training
from ratchet.schemas.explain import explain
from ratchet.schemas.monitoring_events import Alert, Drift
from ratchet.schemas.rollout_events import Gateway, Operator, Rollout

E = TypeVar("E", bound=Event)

EVENTS: dict[str, type[Event]] = {
    "inference.v1": Inference,
    "shadow.v1": Shadow,
    "feedback.v1": Feedback,
    "score.v1": Score,
    "training.v1": Training,
    "adapter.v1": Adapter,
    "rollout.v1": Rollout,
    "operator.v1": Operator,
    "gateway.v1": Gateway,
    "drift.v1": Drift,
    "alert.v1": Alert,
    "dead-letter.v1": DeadLetter,
}


def parse(kind: type[E], raw: bytes) -> E:
    """Decode one event of a known kind.

    Raises:
        InvalidEvent: the bytes are not JSON, or not an event of this kind and version.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidEvent(explain(error)) from None


def parse_any(raw: bytes, allowed: tuple[str, ...]) -> Event:
    """Decode an event by its ``schema`` field, where a topic carries several.

    Raises:
        InvalidEvent: no JSON object, an unknown schema, or fields that do not fit it.
    """
    if len(allowed) == 1:
        # the common case in one pass; what fails goes on to be explained
        try:
            event = EVENTS[allowed[0]].model_validate_json(raw)
        except ValidationError:
            pass
        else:
            if "schema_" in event.model_fields_set:
                return event
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(f"not JSON: {error}") from None
    name = value.get("schema") if isinstance(value, dict) else None
    if name not in allowed:
        raise InvalidEvent(f"schema: {name!r} is not carried here; allowed: {', '.join(allowed)}")
    return parse(EVENTS[name], raw)

"""``POST /v1/events``: a JSON array or NDJSON of events from apps that do not use the gateway.

Good events are taken even where others of the same request are bad; every bad one is named by
its index, the field and the reason. Events are idempotent by their ids, so a client may send
the whole request again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from ratchet.schemas.decoding import parse_any
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event, Inference
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.errors import Refused
from ratchet.services.gateway.recent import Origins
from ratchet.services.rules.admission import Caller

ACCEPTED = ("inference.v1", "feedback.v1")


@dataclass(slots=True)
class Receipt:
    """What became of one request's events."""

    accepted: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    queue_full: bool = False

    @property
    def status(self) -> int:
        """202 when all were taken, 503 when the queue was full (send again), else 400."""
        return 202 if not self.errors else 503 if self.queue_full else 400

    def body(self) -> dict[str, Any]:
        """The answer: how many were taken, and which were not and why."""
        return {"accepted": self.accepted} | ({"errors": self.errors} if self.errors else {})

    def refuse(self, index: int, field: str, reason: str) -> None:
        """Note one event that was not taken."""
        self.errors.append({"index": index, "field": field, "reason": reason})


def take_events(raw: bytes, emitter: Emitter, origins: Origins, caller: Caller) -> Receipt:
    """Take every good event of a body.

    Args:
        raw: the body.
        emitter: where events go.
        origins: notes where each inference came from, so that feedback on it need not say it.
        caller: whose events they are; a key's events cannot name another tenant.

    Raises:
        Refused: 400, the body is neither a JSON array nor NDJSON, or is empty.
    """
    receipt = Receipt()
    for index, item in enumerate(_split(raw)):
        try:
            event = _read(item, caller)
            _refuse_foreign(event, origins, caller)
            emitter.offer(event)
        except InvalidEvent as error:
            place, _, reason = str(error).partition(": ")
            receipt.refuse(index, place, reason)
            continue
        except BrokerError as error:
            receipt.queue_full = True
            receipt.refuse(index, "event", f"not taken, send it again: {error}")
            continue
        receipt.accepted += 1
        if isinstance(event, Inference):
            origins.put(event.id, None, event.tenant, event.task)
    return receipt


def _split(raw: bytes) -> list[Any]:
    """The items: of an array decoded, of NDJSON each line's bytes."""
    text = raw.strip()
    if text.startswith(b"["):
        try:
            items: list[Any] = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Refused(400, f"body: not JSON: {error}", param="body", code="invalid_json") from None
    else:
        items = [line for line in text.splitlines() if line.strip()]
    if not items:
        raise Refused(400, "body: no events; allowed: a JSON array or NDJSON", param="body", code="invalid_json")
    return items


def _read(item: Any, caller: Caller) -> Event:
    value = item
    if isinstance(item, bytes):
        try:
            value = orjson.loads(item)
        except orjson.JSONDecodeError as error:
            raise InvalidEvent(f"event: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidEvent("event: allowed: a JSON object")
    value.setdefault("source", "http")
    tenant = value.setdefault("tenant", caller.tenant)
    if caller.bound and tenant != caller.tenant:
        raise InvalidEvent(f"tenant: not the key's; allowed: {caller.tenant!r}, or none")
    return parse_any(orjson.dumps(value), ACCEPTED)


def _refuse_foreign(event: Event, origins: Origins, caller: Caller) -> None:
    """An event may neither replace another tenant's inference nor speak of it."""
    for name in ("id",) if isinstance(event, Inference) else ("inference_id", "compared_with"):
        if origins.foreign(getattr(event, name), caller):
            raise InvalidEvent(f"{name}: is another tenant's; allowed: an inference of the key's own tenant")

"""``POST /v1/feedback``: one call that says what a user thought of an answer.

Idempotent by id within the memory of this process: the same id with the same body again is a
no-op, with another body a conflict. Across restarts and replicas the stored rows are: two
events of one id are one row, since a client's own id also says when (docs/decisions/018).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError

from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Feedback
from ratchet.schemas.ids import hash_user, unix_ms
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.errors import Refused, bad_field, first_problem
from ratchet.services.gateway.recent import Origins, Recent
from ratchet.services.rules.admission import Caller

_FIELDS = ("id", "task", "inference_id", "conversation_id", "kind", "value", "compared_with", "user", "tags")
_BELIEVED = timedelta(days=1)
"""How far from now the time in a client's id may lie."""


class FeedbackDesk:
    """Takes feedback in."""

    def __init__(
        self,
        tasks: Mapping[str, TaskPolicy],
        origins: Origins,
        taken: Recent[str, str],
        emitter: Emitter,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        """Take the parts.

        Args:
            tasks: the declared tasks.
            origins: where recent inferences and conversations came from, as the proxy notes them.
            taken: the body's digest of each recent feedback id.
            emitter: where events go.
            now: the clock.
            new_id: makes ids for feedback without one.
        """
        self._tasks = tasks
        self._origins = origins
        self._taken = taken
        self._emitter = emitter
        self._now = now
        self._new_id = new_id

    def take(self, value: dict[str, Any], caller: Caller) -> str:
        """Take one piece of feedback in the caller's name; returns its id.

        Raises:
            Refused: 400 naming the field, 409 for an id that was used for something else,
                503 when the event queue is full (nothing was taken: send it again).
        """
        feedback = self._read(value, caller)
        body = orjson.dumps([caller.tenant, value], option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(body).hexdigest()
        known = self._taken.get(feedback.id)
        if known == digest:
            return feedback.id
        if known is not None:
            message = f"id: {feedback.id} was used for other feedback; allowed: a new id, or the same body again"
            raise Refused(409, message, param="id", code="id_conflict")
        try:
            self._emitter.offer(feedback)
        except BrokerError as error:
            raise Refused(503, f"Nothing was taken, send it again: {error}", code="queue_full") from None
        except InvalidEvent as error:
            raise Refused(413, f"value: too large: {error}", param="value", code="request_too_large") from None
        self._taken.put(feedback.id, digest)
        return feedback.id

    def _read(self, value: dict[str, Any], caller: Caller) -> Feedback:
        for field in value:
            if field not in _FIELDS:
                raise bad_field(field, f"no such field; allowed: {', '.join(_FIELDS)}")
        for field in ("kind", "value"):
            if value.get(field) is None:
                raise bad_field(field, "missing")
        if value.get("inference_id") is None and value.get("conversation_id") is None:
            raise bad_field("inference_id", "missing; allowed: inference_id, conversation_id or both")
        user = value.get("user")
        if user is not None and not isinstance(user, str):
            raise bad_field("user", "allowed: a text")
        for field in ("inference_id", "compared_with"):
            if self._origins.foreign(str(value.get(field)), caller):
                raise bad_field(field, "is another tenant's; allowed: an inference of the key's own tenant")
        fields = {key: item for key, item in value.items() if item is not None} | {
            "id": value.get("id") or self._new_id(),
            "at": self._now(),
            "task": self._task(value, caller),
            "tenant": caller.tenant,
            "user": hash_user(user) if user else None,
            "source": "http",
        }
        try:
            feedback = Feedback.model_validate(fields)
        except ValidationError as error:
            raise bad_field(*first_problem(error)) from None
        return feedback.model_copy(update={"at": self._given_at(feedback)}) if value.get("id") else feedback

    def _given_at(self, feedback: Feedback) -> datetime:
        """When feedback with a client's own id was given: sent again, it must become the same row."""
        at = datetime.fromtimestamp(unix_ms(feedback.id) / 1000, UTC)
        return at if abs(at - feedback.at) <= _BELIEVED else feedback.at

    def _task(self, value: dict[str, Any], caller: Caller) -> str:
        """The task as the body names it, else as the gateway remembers the inference or conversation."""
        task = value.get("task")
        if task is not None:
            if not isinstance(task, str) or task not in self._tasks:
                raise bad_field("task", f"{task!r} is not declared; allowed: {', '.join(sorted(self._tasks))}")
            return task
        origin = self._origins.inference(str(value.get("inference_id")))
        if origin is not None:
            return origin.task
        found = self._origins.conversation(caller.tenant, str(value.get("conversation_id")))
        if found is not None:
            return found
        raise bad_field("task", "missing, and the gateway no longer remembers this inference; name its task")

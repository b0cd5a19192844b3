"""Events as Kafka may have them: each task's redaction applied to whatever text an event carries.

The app's request and answer are values of their own and stay as they are; what is changed here is
a copy, and an event in which nothing is found is handed on as it came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ratchet.schemas.events import Event, Feedback, Inference, Shadow
from ratchet.schemas.ids import hash_user
from ratchet.schemas.policies import RedactionPolicy, TaskPolicy
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.rules.redaction import Redactor

_UNDECLARED = "(undeclared)"
_HASH = re.compile(r"[0-9a-f]{32}")
_MAX_TAG_KEY, _MAX_TAG = 128, 1024


class EventRedactor:
    """Redacts events by their tasks' policies, and counts what it replaced."""

    def __init__(self, tasks: Mapping[str, TaskPolicy], salt: str, metrics: Metrics) -> None:
        """Compile every task's policy.

        Args:
            tasks: the declared tasks; events of others (apps may send them) get the default policy.
            salt: the key of the placeholders' hash.
            metrics: where replaced values are counted.
        """
        self._salt = salt
        self._redactors = {task: Redactor(policy.redaction, salt=salt, task=task) for task, policy in tasks.items()}
        self._count = metrics.redactions

    def __call__(self, event: Event) -> Event:
        """Redact one event; the same object where nothing was found."""
        if not isinstance(event, Inference | Shadow | Feedback):
            return event
        declared = event.task in self._redactors
        redactor = self._redactors.get(event.task) or Redactor(RedactionPolicy(), salt=self._salt, task=event.task)
        fields = _fields(event)
        redacted, counts = redactor.redact_json(fields)
        if not counts:
            return event
        for kind, number in counts.items():
            self._count.labels(event.task if declared else _UNDECLARED, kind).inc(number)
        changed = {name: value for name, value in redacted.items() if value != fields[name]}
        # Not validated again: texts became texts, and nothing else changed.
        return event.model_copy(update={name: _field(event, name, value) for name, value in changed.items()})


def _fields(event: Inference | Shadow | Feedback) -> dict[str, Any]:
    """Everything in an event that an app, a user or a model wrote, as JSON values."""
    fields: dict[str, Any] = {"conversation_id": event.conversation_id, "tags": event.tags}
    if event.user is not None and not _HASH.fullmatch(event.user):
        fields["user"] = event.user
    if isinstance(event, Feedback):
        return fields | {"value": event.value}
    return fields | {
        "request": event.request.__dict__,
        "response": event.response.__dict__ if event.response else None,
        "error": event.error,
    }


def _field(event: Event, name: str, redacted: Any) -> Any:
    """A changed field as the event has it."""
    if name in ("request", "response"):
        return getattr(event, name).model_copy(update=redacted)
    if name in ("user", "conversation_id"):
        # An id that is personal data is hashed whole: events that share it must still be joined by it.
        return hash_user(getattr(event, name))
    if name == "tags":
        # A placeholder can be longer than its value, and consumers refuse longer tags.
        return {key[:_MAX_TAG_KEY]: value[:_MAX_TAG] for key, value in redacted.items()}
    return redacted

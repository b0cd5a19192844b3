"""Events as Kafka may have them: each task's redaction applied to whatever text an event carries.

The app's request and answer are values of their own and stay as they are; what is changed here is
a copy, and an event in which nothing is found is handed on as it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ratchet.schemas.events import Event, Feedback, Inference, Shadow
from ratchet.schemas.policies import RedactionPolicy, TaskPolicy
from ratchet.services.gateway.asks import hash_user
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.rules.redaction import Redactor

_UNDECLARED = "(undeclared)"
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
        counts: Counter[str] = Counter()
        changed = _fields(event, redactor, counts)
        if not counts:
            return event
        for kind, number in counts.items():
            self._count.labels(event.task if declared else _UNDECLARED, kind).inc(number)
        # Not validated again: texts became texts, and nothing else changed.
        return event.model_copy(update=changed)


def _fields(event: Inference | Shadow | Feedback, redactor: Redactor, counts: Counter[str]) -> dict[str, Any]:
    """The fields that change, with their new values."""
    changed: dict[str, Any] = {}
    # An id that is personal data is hashed whole: events that share it must still be joined by it.
    for name in ("user", "conversation_id"):
        value = getattr(event, name)
        if value and _redact(redactor, value, counts) is not value:
            changed[name] = hash_user(value)
    if event.tags:
        tags = _redact(redactor, event.tags, counts)
        if tags is not event.tags:
            # A placeholder can be longer than its value, and consumers refuse longer tags.
            changed["tags"] = {key[:_MAX_TAG_KEY]: value[:_MAX_TAG] for key, value in tags.items()}
    if isinstance(event, Feedback):
        if event.kind in ("comment", "correction"):
            changed["value"] = _redact(redactor, event.value, counts)
        return changed
    for part in ("request", "response"):
        model = getattr(event, part)
        if model is not None:
            fields = dict(model)
            redacted = _redact(redactor, fields, counts)
            if redacted is not fields:
                changed[part] = model.model_copy(update=redacted)
    if event.error:
        changed["error"] = _redact(redactor, event.error, counts)
    return changed


def _redact(redactor: Redactor, value: Any, counts: Counter[str]) -> Any:
    """One value, redacted and counted; the same object where nothing was found."""
    redacted, found = redactor.redact_json(value)
    counts.update(found)
    return redacted

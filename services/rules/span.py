"""One span as plain values, whatever carried it here; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class BadSpan(Exception):
    """A span of a model call that cannot become an inference; the text is the reason."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One span: ids in lower-case hex, times in nanoseconds since 1970, attributes as JSON values."""

    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[SpanEvent] = ()
    failed: bool = False
    message: str = ""
    """The status's message."""

    def first(self, *names: str) -> Any:
        """The first of these attributes that the span has, or None: conventions rename, the meaning stays."""
        for name in names:
            value = self.attributes.get(name)
            if value is not None:
                return value
        return None

    def text(self, *names: str) -> str | None:
        """The first of these attributes that is a text and not empty, or None."""
        for name in names:
            value = self.attributes.get(name)
            if isinstance(value, str) and value:
                return value
        return None

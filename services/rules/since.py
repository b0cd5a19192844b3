"""How far back a person wants to look: ``30m``, ``24h``, ``2h ago``, ``7d``, or a date or time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"([1-9][0-9]{0,5})([mhdw])(?: ago)?")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
ALLOWED = "30m, 24h, 7d, 2w, a date (2026-11-01) or a time with a zone (2026-11-01T12:00:00Z)"


def instant(text: str, now: datetime) -> datetime:
    """Read where to begin.

    Args:
        text: a span back from ``now``, or a date (in UTC) or time of its own.
        now: the present instant, aware.

    Raises:
        ValueError: neither, or before the first year; names the value and what is allowed.
    """
    try:
        if span := _SPAN.fullmatch(text):
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
        if len(text) == len("2026-11-01"):
            return at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r}; allowed: {ALLOWED}")

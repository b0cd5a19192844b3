"""How far back to look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.services.rules.since import instant

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(days=1)),
        ("2w", timedelta(days=14)),
        ("2h ago", timedelta(hours=2)),
        ("2026-11-25", timedelta(hours=12)),
        ("2026-11-25T12:30:00+01:00", timedelta(minutes=30)),
    ],
)
def test_spans_dates_and_times(text: str, back: timedelta) -> None:
    """A span counts from now, a date begins in UTC, a time says its zone."""
    assert instant(text, NOW) == NOW - back


@pytest.mark.parametrize("text", ["", "0h", "1y", "-1d", "tomorrow", "999999w", "2026-11-25T12:30:00", "20261125"])
def test_nonsense_is_named(text: str) -> None:
    """What is no span and no time is refused with what is allowed; nothing is guessed about zones."""
    with pytest.raises(ValueError, match="allowed: 30m, 24h"):
        instant(text, NOW)

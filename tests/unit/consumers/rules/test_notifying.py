"""When a sink hears of an alert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ratchet.consumers.rules.notifying import due, patience_s
from ratchet.infra.sinks.outbox import Told
from ratchet.schemas.alerting import SinkSettings
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LOG = SinkSettings(kind="log", reminder_hours=6)
AM = SinkSettings(kind="alertmanager", url=SecretStr("http://a"), resend_s=60)


def alert(**more: object) -> Alert:
    """An open warning."""
    fields = {"id": derived_id(1, "a"), "at": NOW, "kind": "drift", "severity": "warning", "title": "t", "source": "s"}
    return Alert.model_validate(fields | more)


def told(state: str = "open", severity: str = "warning", ago: timedelta = timedelta()) -> Told:
    """What was said some time ago."""
    return Told(state, severity, NOW - ago, NOW - ago)


@pytest.mark.parametrize(
    ("heard", "now_is", "reason"),
    [
        (Told(), alert(), "raised"),
        (told(), alert(), None),
        (told(), alert(summary="other figures"), None),
        (told(), alert(severity="critical"), "worse"),
        (told(severity="critical"), alert(), None),
        (told(), alert(state="resolved"), "resolved"),
        (told("resolved"), alert(state="resolved"), None),
        (told("resolved"), alert(), "raised"),
        (Told(), alert(state="resolved"), "resolved"),
        (told(ago=timedelta(hours=5.9)), alert(), None),
        (told(ago=timedelta(hours=6)), alert(), "reminder"),
        (told(ago=timedelta(days=3)), alert(state="acknowledged"), None),
        (told(), alert(state="acknowledged", severity="critical"), "worse"),
        (Told(), alert(at=NOW - timedelta(days=8)), "raised"),
    ],
)
def test_what_notifies(heard: Told, now_is: Alert, reason: str | None) -> None:
    """Raise, worse, resolve and a reminder; an unchanged update, and an acknowledgement are silent."""
    assert due(heard, now_is, LOG, NOW)[0] == reason


def test_alertmanager_hears_every_change_and_again_in_time() -> None:
    """Its own rules decide whom it pages: it gets each update, and the same again before it forgets."""
    heard = Told("open", "warning", NOW, NOW)
    assert due(heard, alert(), AM, NOW) == (None, NOW + timedelta(seconds=60))
    assert due(heard, alert(), AM, NOW + timedelta(seconds=60))[0] == "updated"
    assert due(heard, alert(at=NOW + timedelta(seconds=1)), AM, NOW)[0] == "updated"
    assert due(heard, alert(state="acknowledged"), AM, NOW + timedelta(seconds=60))[0] == "updated"


def test_a_sink_hears_what_it_is_for() -> None:
    """Below its severity or of another task nothing begins; what began there ends there."""
    sink = SinkSettings(kind="log", severity="critical", tasks=["support"])
    assert due(Told(), alert(task="support"), sink, NOW)[0] is None
    assert due(Told(), alert(task="other", severity="critical"), sink, NOW)[0] is None
    assert due(Told(), alert(severity="critical"), sink, NOW)[0] == "raised"
    assert due(told(severity="critical"), alert(state="resolved", severity="info"), sink, NOW)[0] == "resolved"


@given(st.integers(1, 10_000), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 3600)))
def test_patience_is_bounded_and_obeys(failures: int, uniform: float, asked: float | None) -> None:
    """Never longer than five minutes of its own, never shorter than Retry-After, never nothing."""
    waits = patience_s(failures, asked, uniform)
    assert 0.5 <= waits <= max(300.0, (asked or 0) * 1.1)
    assert waits >= (asked or 0.0)

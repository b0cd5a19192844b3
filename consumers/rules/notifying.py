"""When a sink hears of an alert: raised, worse, resolved, and reminders; an update that changes nothing is silent."""

from __future__ import annotations

from datetime import datetime, timedelta

from ratchet.infra.kafka.backoff import backoff_s
from ratchet.infra.sinks.notice import Reason
from ratchet.infra.sinks.outbox import Told
from ratchet.schemas.alerting import RANK, SinkSettings
from ratchet.schemas.monitoring_events import Alert

FIRST_S, LAST_S = 1.0, 300.0
"""The first and the longest wait after a failure, before jitter."""


def due(told: Told, alert: Alert, sink: SinkSettings, now: datetime) -> tuple[Reason | None, datetime | None]:
    """Say what a sink is to hear of an alert now.

    Args:
        told: what it has heard.
        alert: how the alert stands.
        sink: which alerts it wants, and how often.
        now: the present instant, with zone.

    Returns:
        Why it is to hear of it now, and when to look again if nothing is said; both may be None.
    """
    known = told.state not in ("", "resolved")
    if not known and not wanted(alert, sink):
        return None, None
    if alert.state == "resolved":
        return (None, None) if told.state == "resolved" else ("resolved", None)
    if not known:
        return "raised", None
    if RANK[alert.severity] > RANK[told.severity]:
        return "worse", None
    if sink.kind == "alertmanager":
        # it has cooldowns and reminders of its own, and forgets whom it does not hear of
        again = told.at + timedelta(seconds=sink.resend_s)
        return ("updated", None) if alert.at > told.event_at or now >= again else (None, again)
    if alert.state == "acknowledged" or not sink.reminder_hours:
        return None, None
    again = told.at + timedelta(hours=sink.reminder_hours)
    return ("reminder", None) if now >= again else (None, again)


def wanted(alert: Alert, sink: SinkSettings) -> bool:
    """Whether an alert begins at this sink: severe enough, and of a task that it is for."""
    return RANK[alert.severity] >= RANK[sink.severity] and (
        not sink.tasks or alert.task is None or alert.task in sink.tasks
    )


def patience_s(failures: int, asked_s: float | None, uniform: float) -> float:
    """Seconds until the next try: doubling up to five minutes, half of it jitter, and never before Retry-After.

    Args:
        failures: in a row, this one included.
        asked_s: the receiver's Retry-After, if it sent one.
        uniform: a random number from 0 to 1.
    """
    waits = backoff_s(failures, FIRST_S, LAST_S) * (0.5 + uniform / 2)
    return max(waits, (asked_s or 0.0) * (1 + uniform / 10))

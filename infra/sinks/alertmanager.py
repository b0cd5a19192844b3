"""Alertmanager, API v2: ``POST /api/v2/alerts``.

An alert is its labels there, so they hold only what stays: where the severity changes, the alert with the old
one ends in the same request. It ends itself when it was not heard of until ``endsAt``, which each request moves on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from ratchet.infra.sinks.notice import Notice, cut, facts
from ratchet.schemas.alerting import SinkSettings

PATH = "/api/v2/alerts"
SILENT_TIMES = 5
"""An alert ends after so many times ``resend_s`` without a word: one lost request ends none."""


def body(notice: Notice, settings: SinkSettings, now: datetime) -> list[dict[str, Any]]:
    """The request's JSON: the alert, and before it the one with its former severity, ended."""
    alert = notice.alert
    ends = alert.at if alert.state == "resolved" else now + timedelta(seconds=SILENT_TIMES * settings.resend_s)
    found = [_one(notice, alert.severity, ends, settings.link)]
    if notice.told_severity and notice.told_severity != alert.severity:
        found.insert(0, _one(notice, notice.told_severity, now, settings.link))
    return found


def labels(notice: Notice, severity: str) -> dict[str, str]:
    """What the alert is there: name, what it is about, and the id that tells two of the same apart."""
    alert = notice.alert
    found = {
        "alertname": f"Ratchet{''.join(part.capitalize() for part in alert.kind.replace('-', '_').split('_'))}",
        "severity": severity,
        "task": alert.task or "",
        "adapter": alert.adapter or "",
        "key": alert.key or alert.kind,
        "alert_id": alert.id,
        "source": alert.source,
    }
    return {name: value for name, value in found.items() if value}


def _one(notice: Notice, severity: str, ends: datetime, link: str) -> dict[str, Any]:
    alert = notice.alert
    known = facts(notice)
    annotations = {
        "summary": alert.title,
        "description": cut(alert.summary, 4000),
        "action": cut(alert.action, 1000),
        "runbook_url": alert.runbook,
        "state": alert.state,
        "since": known["Since"],
        "top": known.get("What moved most", ""),
        "examples": known.get("Examples", ""),
        "false_alarms_per_year": known.get("Expected false alarms a year", ""),
    }
    found: dict[str, Any] = {
        "labels": labels(notice, severity),
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": notice.since.isoformat(),
        "endsAt": max(ends, notice.since).isoformat(),
    }
    return found | ({"generatorURL": link} if link else {})

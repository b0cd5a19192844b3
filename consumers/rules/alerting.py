"""The life of an alert: raised, updated, opened again, resolved; one at a time is open for what it is about.

Ids derive from what the alert is about and since when, so whoever decides the same again raises no second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from ratchet.schemas.drift_policy import DriftPolicy
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert

Severity = Literal["info", "warning", "critical"]
_RANK = {"info": 0, "warning": 1, "critical": 2}
_CHANGE = 0.2
"""An open alert is said anew where its effect has grown by this share."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found at the end of one hour, as an alert says it.

    ``alarms``: it is beyond the rule's limit now. ``calm``: hours in a row within it. An abstention has neither.
    """

    key: str
    at: datetime
    alarms: bool
    calm: int
    task: str
    adapter: str
    kind: str
    severity: Severity
    since: datetime
    effect: float
    title: str
    summary: str
    action: str
    runbook: str
    false_alarms_per_year: float | None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def step(known: Alert | None, found: Finding, policy: DriftPolicy) -> Alert | None:
    """Say what becomes of an alert after one more hour.

    Args:
        known: how the newest alert of the finding's key stands; None: there never was one.
        found: the hour's finding.
        policy: says when an alert resolves, comes again, and is said anew.

    Returns:
        The event to publish, or None where there is nothing new to say. An acknowledged alert stays acknowledged
        unless its severity rises. An hour that was said before (``found.at`` not after the alert's) says nothing.
    """
    if known is not None and found.at <= known.at:
        return None
    if known is None or known.state == "resolved":
        return _raise(known, found, policy) if found.alarms else None
    if found.alarms:
        return _update(known, found, policy)
    if found.calm >= policy.resolve_hours:
        summary = f"back within its limits for {found.calm} hours; it said: {known.summary}"
        return known.model_copy(update={"state": "resolved", "at": found.at, "summary": summary})
    return None


def _raise(known: Alert | None, found: Finding, policy: DriftPolicy) -> Alert:
    if known is not None and found.at - known.at <= timedelta(hours=policy.cooldown_hours):
        return _said(found, id=known.id, since=known.since or found.since, state="open")
    since_ms = int(found.since.timestamp() * 1000)
    return _said(found, id=derived_id(since_ms, "alert", found.key), since=found.since, state="open")


def _update(known: Alert, found: Finding, policy: DriftPolicy) -> Alert | None:
    worse = _RANK[found.severity] > _RANK[known.severity]
    before = abs(float(known.evidence.get("effect", 0.0)))
    grown = abs(found.effect) > before * (1 + _CHANGE)
    old = found.at - known.at >= timedelta(hours=policy.reminder_hours)
    if not (worse or grown or old):
        return None
    severity = found.severity if worse else known.severity
    state: Literal["open", "acknowledged"] = "acknowledged" if known.state == "acknowledged" and not worse else "open"
    said = _said(found, id=known.id, since=known.since or found.since, state=state)
    return said.model_copy(update={"severity": severity})


def _said(found: Finding, *, id: str, since: datetime, state: Literal["open", "acknowledged", "resolved"]) -> Alert:
    return Alert(
        id=id,
        at=found.at,
        task=found.task,
        adapter=found.adapter,
        kind=found.kind,
        key=found.key,
        severity=found.severity,
        state=state,
        since=since,
        title=found.title[:256],
        summary=found.summary,
        action=found.action,
        runbook=found.runbook,
        false_alarms_per_year=found.false_alarms_per_year,
        evidence={"effect": found.effect, **found.evidence},
        source="drift",
    )

"""What a sink is given to say, and the words that all sinks have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert

Reason = Literal["raised", "worse", "updated", "reminder", "resolved", "test"]


@dataclass(frozen=True)
class Notice:
    """One thing to say of an alert: why now, since when, and what was said before."""

    alert: Alert
    reason: Reason
    since: datetime
    """When it began: the alert's own word, or the first event of it."""
    told_severity: str = ""
    """The severity that the sink has heard, '' where it has heard nothing."""
    occasion: str = ""
    """What sets two notices of one reason apart, e.g. which reminder it is."""

    @property
    def id(self) -> str:
        """The same for the same notice, however often it is sent; a receiver drops what it has seen."""
        at_ms = int(self.alert.at.timestamp() * 1000)
        return derived_id(at_ms, "notice", self.alert.id, self.alert.at.isoformat(), self.reason, self.occasion)


def facts(notice: Notice) -> dict[str, str]:
    """What is known of an alert, in order, a line each; what is not known is left out."""
    alert = notice.alert
    evidence = alert.evidence
    examples = evidence.get("inferences", [])
    top = evidence.get("top", [])
    rate = alert.false_alarms_per_year
    found = {
        "Task": alert.task or "all",
        "Adapter": alert.adapter or "",
        "Since": notice.since.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "What moved most": "; ".join(map(moved, top[:5])) if isinstance(top, list) else str(top),
        "Examples": ", ".join(map(str, examples[:5])) if isinstance(examples, list) else str(examples),
        "Expected false alarms a year": f"{rate:.2g}" if rate is not None else "",
        "Runbook": alert.runbook,
    }
    return {name: cut(text, 500) for name, text in found.items() if text}


def moved(item: Any) -> str:
    """One bin or term in words."""
    if isinstance(item, Mapping) and {"label", "before", "now"} <= item.keys():
        before, now = item["before"], item["now"]
        if isinstance(before, int | float) and isinstance(now, int | float):
            return f"{item['label']} {before:.1%} → {now:.1%}"
    return str(item)


def headline(notice: Notice) -> str:
    """The title with what became of it."""
    words = {
        "raised": notice.alert.severity.upper(),
        "worse": f"WORSE, NOW {notice.alert.severity.upper()}",
        "updated": notice.alert.severity.upper(),
        "reminder": f"STILL {notice.alert.state.upper()}, {notice.alert.severity.upper()}",
        "resolved": "RESOLVED",
        "test": "TEST",
    }
    return f"[{words[notice.reason]}] {notice.alert.title}"


def cut(text: str, most: int) -> str:
    """At most so many characters, the last of them an ellipsis where some are missing."""
    return text if len(text) <= most else text[: most - 1] + "…"


def trial(now: datetime, new_id: str) -> Notice:
    """A notice that says it is a test, with everything a real one has."""
    alert = Alert(
        id=new_id,
        at=now,
        kind="test",
        severity="info",
        title="this is a test of Ratchet's alerts",
        summary="nothing is wrong: somebody ran `ratchet alerts test`",
        action="nothing",
        source="cli",
    )
    return Notice(alert, "test", now)

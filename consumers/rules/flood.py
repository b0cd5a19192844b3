"""When bad messages stop being accidents: past a share of a window, dead-lettering must stop."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ratchet.schemas.events import DeadLetter
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert

HOUR_MS = 60 * 60 * 1000


@dataclass(frozen=True)
class FloodPolicy:
    """More than ``share`` bad messages of at least ``minimum`` bad ones within ``window_s`` seconds is a flood.

    ``minimum`` keeps a quiet topic's few bad messages from counting as one.
    """

    share: float = 0.5
    minimum: int = 100
    window_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse thresholds that could never, or always, be met."""
        if not 0 <= self.share < 1 or self.minimum < 1 or self.window_s <= 0:
            raise ValueError(f"{self}; allowed: 0 <= share < 1, minimum >= 1, window_s > 0")


@dataclass(frozen=True)
class Seen:
    """Messages of one poll: when (seconds on any steady clock), how many, how many of them bad."""

    at_s: float
    total: int
    bad: int


Window = tuple[Seen, ...]


def observe(window: Window, seen: Seen, policy: FloodPolicy) -> Window:
    """Add a poll to the window and let go of what is older than the policy's window.

    Polls within a hundredth of the window are kept as one, so the window stays short.
    """
    kept = tuple(poll for poll in window if poll.at_s > seen.at_s - policy.window_s)
    if kept and seen.at_s - kept[-1].at_s < policy.window_s / 100:
        last = kept[-1]
        return (*kept[:-1], Seen(last.at_s, last.total + seen.total, last.bad + seen.bad))
    return (*kept, seen)


def flooding(window: Window, policy: FloodPolicy) -> str | None:
    """Say how many of how many messages were bad where that is a flood; None where it is not."""
    total = sum(poll.total for poll in window)
    bad = sum(poll.bad for poll in window)
    if bad < policy.minimum or bad <= policy.share * total:
        return None
    return f"{bad} of {total} messages within {policy.window_s:g} s are no events (allowed share: {policy.share:.0%})"


def over(fields: dict[str, Any], now: datetime) -> Alert:
    """The same alert once ingest has passed the record that it stood before.

    Args:
        fields: of the alert as it was stored.
        now: the present instant, with zone.
    """
    said = f"ingest went on past it; it said: {fields['summary']}"
    return Alert.model_validate(fields | {"at": now, "state": "resolved", "summary": said})


def flood_alert(first: DeadLetter, problem: str, now: datetime) -> Alert:
    """The alert that says a flood stopped ingest.

    Its id derives from the topic and the hour in which Kafka took the message: a restart that meets
    the same flood, at whichever of its messages, gives the same alert.

    Args:
        first: one of the messages, as the dead letter that it does not become.
        problem: what `flooding` said.
        now: the present instant, with zone.
    """
    hour_ms = int(first.at.timestamp() * 1000) // HOUR_MS * HOUR_MS
    return Alert(
        id=derived_id(hour_ms, "flood", first.topic),
        at=now,
        kind="flood",
        key=f"flood:{first.topic}",
        since=first.at,
        runbook="docs/runbooks/flood.md",
        severity="critical",
        title=f"ingest stopped: {first.topic} is flooded with messages that are no events"[:256],
        summary=f"{problem}; one of them, partition {first.partition} offset {first.offset}: {first.reason}",
        action="Nothing is lost and nothing more is stored: mend or stop the producer and start ingest again; "
        "to dead-letter what it sent, start ingest with RATCHET_FLOOD_MINIMUM above the number of bad messages.",
        evidence={
            "topic": first.topic,
            "partition": first.partition,
            "offset": first.offset,
            "key": first.key,
            "reason": first.reason,
            "value_base64": first.value_base64[:4096],
        },
        source="ingest",
    )

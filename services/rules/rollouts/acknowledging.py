"""Who routes by which table: what gateways said of themselves, and what follows for a flip. Pure.

A gateway acknowledges a version by saying that it has it in force. One that falls silent may be dead, or cut off from
Kafka and serving by its last table: nobody can tell which, so it holds up what can wait (an advance) for a while, and
is named where it matters (an abort) for as long as it is remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ratchet.schemas.rollout_events import Gateway, Rollout

LIVE = timedelta(seconds=20)
"""Four words in time: a gateway speaks every five seconds."""
HOLDS_UP = timedelta(minutes=5)
"""So long after its last word a silent gateway still holds up an advance."""
FORGOTTEN = timedelta(hours=1)
_SETTLED = timedelta(seconds=1)
"""A request that was being routed as a table took effect is in no count yet: a word this much later has it."""

Words = Mapping[str, Gateway]
"""The newest word of each gateway, by its name."""


@dataclass(frozen=True)
class Flip:
    """How a flip away from an adapter stands.

    ``seconds`` from the decision to the last request that any gateway routed to the adapter (0: none after it), once it
    is over; ``acknowledged`` seconds until the last gateway had the table in force. ``live`` and ``silent`` are the
    gateways that have not acknowledged it.
    """

    over: bool
    live: tuple[str, ...]
    silent: tuple[str, ...]
    gateways: int
    seconds: float | None = None
    acknowledged: float | None = None


def present(words: Words, now: datetime, within: timedelta = FORGOTTEN) -> list[Gateway]:
    """The gateways that are or may be serving: heard of lately, and not gone by their own word."""
    return [word for _, word in sorted(words.items()) if word.state == "up" and now - word.at <= within]


def waiting_for(words: Words, table: Rollout, now: datetime) -> tuple[str, ...]:
    """The gateways for which an advance waits: present ones without this table in force."""
    here = (word for word in present(words, now, HOLDS_UP) if word.serves(table.task))
    return tuple(word.gateway for word in here if not has(word, table))


def has(word: Gateway, table: Rollout) -> bool:
    """Whether a gateway has a table, or a later one of its task, in force."""
    return word.tables.get(table.task, 0) >= table.version


def flip(words: Words, table: Rollout, away_from: str, now: datetime) -> Flip:
    """How the flip that a table made stands.

    Args:
        words: of each gateway.
        table: with the decision's time in ``at``.
        away_from: the adapter that it sends nobody to any more.
        now: the present instant.
    """
    here = [word for word in present(words, now) if word.serves(table.task)]
    lacking = [word for word in here if not has(word, table)]
    live = tuple(word.gateway for word in lacking if now - word.at <= LIVE)
    silent = tuple(word.gateway for word in lacking if now - word.at > LIVE)
    settled = [word for word in here if has(word, table) and word.at >= word.since.get(table.task, word.at) + _SETTLED]
    serving = [word for word in here if now - word.at <= LIVE]
    if not serving or live or any(word not in settled for word in serving):
        return Flip(False, live, silent, len(here))
    asked = [at for word in words.values() if (at := word.last_request.get(away_from)) is not None]
    last = max(asked, default=table.at)
    taken = max((word.since.get(table.task, table.at) for word in settled), default=table.at)
    return Flip(True, live, silent, len(here), _seconds(last - table.at), _seconds(taken - table.at))


def drained(adapter: str, words: Words, tables: Iterable[Rollout], now: datetime) -> bool:
    """Whether nobody asks an adapter any more: every present gateway has the tables in force, and nothing in flight.

    Args:
        adapter: that no table names.
        words: of each gateway.
        tables: in force, of all tasks.
        now: the present instant.
    """
    tables = list(tables)
    return all(
        not word.in_flight.get(adapter)
        and all(
            has(word, table) and word.at >= word.since.get(table.task, word.at) + _SETTLED
            for table in tables
            if table.task in word.tables
        )
        for word in present(words, now)
    )


def left_over(
    once: Mapping[str, datetime],
    wanted: Collection[str],
    words: Words,
    tables: Iterable[Rollout],
    now: datetime,
    grace_s: float,
) -> list[str]:
    """The adapters that may be unloaded: nobody wants them since the grace period, and nobody asks them any more.

    Args:
        once: since when nothing wants each adapter that was routed to before.
        wanted: what replicas must have in memory.
        words: of each gateway.
        tables: in force, of all tasks.
        now: the present instant.
        grace_s: seconds.
    """
    tables = list(tables)
    due = (name for name, since in once.items() if name not in wanted and (now - since).total_seconds() >= grace_s)
    return sorted(name for name in due if drained(name, words, tables, now))


def _seconds(span: timedelta) -> float:
    return max(span.total_seconds(), 0.0)

"""What was said of each alert to each sink, and what is still to say: a SQLite file, so a kill loses nothing.

Of an alert it keeps the latest event. Whoever sends claims a row for a while first, so several processes may
share the file; a claim of a process that was killed runs out, and the same notice is sent again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import StartError
from ratchet.schemas.monitoring_events import Alert

MOST_ALERTS = 10_000
"""Beyond it the oldest go, resolved ones first."""
HISTORY_DAYS = 7.0
RESOLVED_DAYS, SILENT_DAYS = 7.0, 30.0
"""So long a resolved alert is kept after its last event, and one that nobody spoke of although it is open."""


@dataclass(frozen=True)
class Told:
    """What a sink has heard of an alert last; ``state`` is '' where it has heard nothing."""

    state: str = ""
    severity: str = ""
    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    event_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Pending:
    """An alert that a sink may have to hear of, claimed."""

    sink: str
    alert: Alert
    first_at: datetime
    told: Told
    attempts: int
    version: int


@dataclass(frozen=True)
class SinkStatus:
    """How a sink does: notices taken, refused for good, waiting; since when and how it fails, if it does."""

    name: str
    taken: int
    refused: int
    waiting: int
    failures: int
    failing_since: datetime | None
    problem: str


class Outbox:
    """The file; every method is one transaction, on the disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where it is missing.

        Raises:
            StartError: it cannot be written, or is no such file.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(resources.files("ratchet.infra.sinks").joinpath("outbox.sql").read_text())
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"alerts: cannot use {path}: {error}; make it writable, or set another home") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def configure(self, sinks: Iterable[str], now: datetime) -> None:
        """Have exactly these sinks: a new one hears of what is open, what was to say to others is dropped."""
        names = [(name,) for name in sinks]
        with self._transaction() as db:
            db.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (name TEXT PRIMARY KEY)")
            db.execute("DELETE FROM wanted")
            db.executemany("INSERT INTO wanted VALUES (?)", names)
            db.execute("DELETE FROM deliveries WHERE sink NOT IN (SELECT name FROM wanted)")
            db.execute("DELETE FROM sinks WHERE name NOT IN (SELECT name FROM wanted)")
            db.executemany("INSERT OR IGNORE INTO sinks (name) VALUES (?)", names)
            db.execute(
                "INSERT OR IGNORE INTO deliveries (sink, alert, next_at) "
                "SELECT name, id, ? FROM wanted, alerts WHERE state != 'resolved' AND at > ?",
                (now.timestamp(), (now - timedelta(days=HISTORY_DAYS)).timestamp()),
            )
            # what a sink lacked may be mended in the settings
            db.execute("UPDATE sinks SET wait_until = 0, failures = 0")

    def accept(self, alert: Alert, sinks: Iterable[str], now: datetime) -> bool:
        """Take an event; False where it is one that came before, or an older one.

        An event that is older than a week when it comes is history, not news: it begins at no sink, so a
        consumer that starts at the topic's beginning pages nobody. What was accepted in time waits on.
        """
        raw, at = alert.to_bytes(), alert.at.timestamp()
        begins = alert.at > now - timedelta(days=HISTORY_DAYS)
        with self._transaction() as db:
            known = db.execute("SELECT at, event FROM alerts WHERE id = ?", (alert.id,)).fetchone()
            if known is not None and (at < known[0] or raw == bytes(known[1])):
                return False
            db.execute(
                "INSERT INTO alerts VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT (id) DO UPDATE SET "
                "at = excluded.at, state = excluded.state, version = version + 1, event = excluded.event",
                (alert.id, at, at, alert.state, raw),
            )
            db.execute("UPDATE deliveries SET next_at = ?, attempts = 0 WHERE alert = ?", (now.timestamp(), alert.id))
            db.executemany(
                "INSERT OR IGNORE INTO deliveries (sink, alert, next_at) VALUES (?, ?, ?)",
                [(sink, alert.id, now.timestamp()) for sink in sinks if begins],
            )
        return True

    def claim(self, sink: str, now: datetime, lease_s: float) -> Pending | None:
        """The next alert that this sink may have to hear of now, for ``lease_s`` seconds nobody else's."""
        at = now.timestamp()
        with self._transaction() as db:
            found = db.execute(
                "SELECT alert, event, first_at, told_state, told_severity, told_at, told_event_at, attempts, version "
                "FROM deliveries JOIN alerts ON id = alert JOIN sinks ON name = sink "
                "WHERE sink = ? AND next_at <= ? AND claimed_until <= ? AND wait_until <= ? "
                "ORDER BY next_at, alert LIMIT 1",
                (sink, at, at, at),
            ).fetchone()
            if found is None:
                return None
            db.execute(
                "UPDATE deliveries SET claimed_until = ? WHERE sink = ? AND alert = ?", (at + lease_s, sink, found[0])
            )
        told = Told(found[3], found[4], _instant(found[5]), _instant(found[6]))
        return Pending(sink, parse(Alert, bytes(found[1])), _instant(found[2]), told, found[7], found[8])

    def settle(self, pending: Pending, next_at: datetime | None) -> None:
        """There is nothing to say now; look again at ``next_at`` (None: when something new is said of it)."""
        with self._transaction() as db:
            self._release(db, pending, next_at, 0)

    def said(self, pending: Pending, told: Told, next_at: datetime | None, refusal: str = "") -> None:
        """The sink took it, or with a ``refusal`` never will: either way this notice is done."""
        column = "refused" if refusal else "taken"
        with self._transaction() as db:
            db.execute(
                "UPDATE deliveries SET told_state = ?, told_severity = ?, told_at = ?, told_event_at = ? "
                "WHERE sink = ? AND alert = ?",
                (told.state, told.severity, told.at.timestamp(), told.event_at.timestamp(), *_key(pending)),
            )
            db.execute(
                f"UPDATE sinks SET {column} = {column} + 1, failures = 0, failing_since = NULL, "  # noqa: S608
                "problem = ?, wait_until = 0 WHERE name = ?",
                (refusal, pending.sink),
            )
            self._release(db, pending, next_at, 0)

    def failed(self, pending: Pending, problem: str, row_at: datetime, sink_at: datetime, now: datetime) -> None:
        """It was not taken: this alert waits until ``row_at``, the whole sink until ``sink_at``."""
        with self._transaction() as db:
            db.execute(
                "UPDATE sinks SET failures = failures + 1, failing_since = coalesce(failing_since, ?), "
                "problem = ?, wait_until = ? WHERE name = ?",
                (now.timestamp(), problem, sink_at.timestamp(), pending.sink),
            )
            self._release(db, pending, row_at, pending.attempts + 1)

    def _release(self, db: sqlite3.Connection, pending: Pending, next_at: datetime | None, attempts: int) -> None:
        # where an event came meanwhile, what it set stands: it is looked at now
        db.execute(
            "UPDATE deliveries SET claimed_until = 0, "
            "next_at = CASE WHEN (SELECT version FROM alerts WHERE id = alert) = ? THEN ? ELSE next_at END, "
            "attempts = ? WHERE sink = ? AND alert = ?",
            (pending.version, next_at.timestamp() if next_at else None, attempts, *_key(pending)),
        )

    def forget(self, now: datetime) -> int:
        """Drop what is long over, and the oldest beyond `MOST_ALERTS`; returns how many alerts went."""
        resolved, silent = (now - timedelta(days=days) for days in (RESOLVED_DAYS, SILENT_DAYS))
        with self._transaction() as db:
            old = db.execute(
                "DELETE FROM alerts WHERE at < ? OR (state = 'resolved' AND at < ? AND NOT EXISTS "
                "(SELECT 1 FROM deliveries WHERE alert = id AND next_at IS NOT NULL))",
                (silent.timestamp(), resolved.timestamp()),
            ).rowcount
            more = db.execute(
                "DELETE FROM alerts WHERE id IN "
                "(SELECT id FROM alerts ORDER BY state != 'resolved' DESC, at DESC LIMIT -1 OFFSET ?)",
                (MOST_ALERTS,),
            ).rowcount
        return int(old + more)

    def status(self) -> list[SinkStatus]:
        """How each sink does, by name."""
        found = self._db.execute(
            "SELECT name, taken, refused, (SELECT count(*) FROM deliveries WHERE sink = name AND attempts > 0), "
            "failures, failing_since, problem FROM sinks ORDER BY name"
        )
        return [
            SinkStatus(name, taken, refused, waiting, failures, _instant(since) if since else None, problem)
            for name, taken, refused, waiting, failures, since, problem in found
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def read_status(path: Path) -> list[SinkStatus]:
    """How each sink does, by the file of a process that may be running; none where there is no file yet.

    Raises:
        StartError: the file cannot be read.
    """
    if not path.is_file():
        return []
    outbox = Outbox(path)
    try:
        return outbox.status()
    finally:
        outbox.close()


def _key(pending: Pending) -> tuple[str, str]:
    return pending.sink, pending.alert.id


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

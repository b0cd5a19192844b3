"""What judges said of which content, kept on disk: the same answer to the same prompt is not paid for twice.

It holds hashes, scores and rationales, no conversations. Losing it costs money, never a score.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path

import orjson

from ratchet.schemas.errors import StartError

log = logging.getLogger("ratchet.judge")
FILE_NAME = "judge-cache.sqlite3"
MOST = 200_000
_SWEEP_EVERY = 500


class JudgeCache:
    """A bounded table of JSON values by key; safe between threads and between processes of one machine."""

    def __init__(self, path: Path, most: int = MOST) -> None:
        """Open or make it.

        Args:
            path: the file; its folder is made.
            most: values kept; the oldest go first.

        Raises:
            StartError: the file cannot be opened, or is no such table.
        """
        self._most = most
        self._lock = threading.Lock()
        self._puts = 0
        self._said = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            # a cache may lose its last values in a power cut
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS said"
                " (number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, value BLOB NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise StartError(
                f"the judge's cache {path}: {error}; delete the file to start with an empty one"
            ) from error

    def get(self, key: str) -> dict[str, object] | None:
        """What was put under ``key``, or None."""
        try:
            with self._lock:
                found = self._db.execute("SELECT value FROM said WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._warn(error)
            return None
        value: dict[str, object] | None = orjson.loads(found[0]) if found else None
        return value

    def put(self, key: str, value: dict[str, object]) -> None:
        """Keep ``value`` under ``key``, and every now and then drop the oldest of too many."""
        try:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO said (key, value) VALUES (?, ?)", (key, orjson.dumps(value)))
                if self._puts % _SWEEP_EVERY == 0:
                    self._db.execute(
                        "DELETE FROM said WHERE number <= (SELECT max(number) FROM said) - ?", (self._most,)
                    )
                self._puts += 1
        except sqlite3.Error as error:
            self._warn(error)

    def clear(self) -> int:
        """Forget everything, for good; returns how many values that were.

        Raises:
            StartError: the file cannot be written.
        """
        try:
            with self._lock:
                self._db.execute("PRAGMA secure_delete=ON")
                gone = self._db.execute("DELETE FROM said").rowcount
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StartError(f"the judge's cache: {error}") from error
        return gone

    def _warn(self, error: sqlite3.Error) -> None:
        # A full disk must not hold up judging: the score is made, and is paid for again if it is wanted again.
        if str(error) != self._said:
            self._said = str(error)
            log.warning("the judge's cache is not used: %s", error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

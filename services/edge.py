"""Keeping somebody's own edge on a task's routing table: its file put in place, its reload, its acknowledgement."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx

from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import EdgeRefused, RatchetError, SettingsError
from ratchet.schemas.rollout_events import Gateway

log = logging.getLogger("ratchet.edge")
SAY_S = 5.0
"""Seconds between two acknowledgements, and between two tries at a table that the edge refused."""
PLACE = "{}"
"""Stands for the new file's path in the words of a check."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,20}")
_COMMAND_S = 60.0
_CONFIRM_S = 10.0
_SETTLED_S = 0.3
"""nginx's master tells its old workers to leave 0.1 s after the new ones began: until then both take requests."""


@dataclass(frozen=True)
class EdgeText:
    """A routing table's version (0: none), the file that it makes, and the adapters that it sends requests to."""

    version: int
    content: str
    adapters: frozenset[str] = frozenset()


class EdgeFile:
    """The file that an edge includes: checked, put in place as a whole, loaded, and confirmed by the edge itself."""

    def __init__(
        self, path: Path, check: Sequence[str] = (), reload: Sequence[str] = (), confirm: str | None = None
    ) -> None:
        """Name the file and the commands; words, no shell.

        Args:
            path: the file; the new one is written beside it first, as ``<path>.new``.
            check: refuses ``<path>.new`` (`PLACE` stands for it) by an exit status other than 0; empty: none.
            reload: makes the edge read ``path``; empty: none.
            confirm: a URL of the edge whose answer has the header ``x-ratchet-table`` with the version in force.
        """
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self._check = [str(self._new) if word == PLACE else word for word in check]
        self._reload = list(reload)
        self._confirm = confirm

    def put(self, text: EdgeText) -> None:
        """Bring one table into force.

        Raises:
            EdgeRefused: the check says no and the old file stays, or the reload failed, or the edge does not confirm.
        """
        if not (self._path.is_file() and self._path.read_text(encoding="utf-8") == text.content):
            self._replace(text.content)
        _run(self._reload)
        if self._confirm:
            _await(self._confirm, str(text.version))

    def _replace(self, content: str) -> None:
        try:
            with self._new.open("w", encoding="utf-8") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            _run(self._check)
            os.replace(self._new, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise EdgeRefused(f"{self._path}: cannot be written: {error.strerror or error}") from error


def _run(words: Sequence[str]) -> None:
    if not words:
        return
    command = " ".join(words)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_S)
    except subprocess.TimeoutExpired:
        raise EdgeRefused(f"`{command}` did not end within {_COMMAND_S:g} s") from None
    except OSError as error:
        raise EdgeRefused(f"`{command}` cannot be run: {error.strerror or error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise EdgeRefused(f"`{command}` ended with status {done.returncode}: {said[-500:] or 'without a word'}")


def _await(url: str, version: str) -> None:
    """Ask, each time on a new connection, until every answer of `_SETTLED_S` came by that table."""
    deadline = time.monotonic() + _CONFIRM_S
    since: float | None = None
    with httpx.Client(headers={"connection": "close"}, timeout=2.0, trust_env=False) as edge:
        while since is None or time.monotonic() - since < _SETTLED_S:
            try:
                said = edge.get(url).headers.get("x-ratchet-table")
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
            if said != version:
                since = None
                if time.monotonic() >= deadline:
                    raise EdgeRefused(f"{url} says {said!r} {_CONFIRM_S:g} s after the reload; expected {version!r}")
            elif since is None:
                since = time.monotonic()
            time.sleep(0.02)


def edge_id(task: str, name: str) -> str:
    """What the edge is called in its acknowledgements: ``edge:<task>:<host>:<name>``.

    Raises:
        SettingsError: the name is none that can stand there.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"--name {name!r}; allowed: at most 20 letters, digits, dots, hyphens and underscores")
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:38]
    return f"edge:{task}:{host}:{name}"


class Presence:
    """What an edge can say of itself: the table in force, and to which adapters a request may still be under way.

    It counts no requests. So each adapter of the table has one in flight for all that is known, and one that left the
    table has until the longest answer has ended: nothing is unloaded under a request that nobody counted.
    """

    def __init__(self, edge: str, task: str, longest_s: float) -> None:
        """Say nothing yet.

        Args:
            edge: the edge's name, see `edge_id`.
            task: the task's name.
            longest_s: seconds within which every answer has ended.
        """
        self._edge = edge
        self._task = task
        self._longest = timedelta(seconds=longest_s)
        self._text: EdgeText | None = None
        self._since: datetime | None = None
        self._left: dict[str, datetime] = {}

    def takes_effect(self, text: EdgeText, at: datetime) -> None:
        """Note that a table is in force since ``at``."""
        if self._text is not None:
            self._left |= dict.fromkeys(self._text.adapters, at)
        self._left = {name: when for name, when in self._left.items() if name not in text.adapters}
        self._text, self._since = text, at

    def word(self, event_id: str, at: datetime) -> Gateway | None:
        """The acknowledgement; None while it is not known what the edge routes by."""
        if self._text is None:
            return None
        here = dict.fromkeys(self._text.adapters, at)
        busy = [*here, *(name for name, when in self._left.items() if at < when + self._longest)]
        known = self._text.version > 0
        return Gateway(
            id=event_id,
            at=at,
            gateway=self._edge,
            tables={self._task: self._text.version} if known else {},
            since={self._task: self._since} if known and self._since else {},
            in_flight=dict.fromkeys(busy, 1),
            last_request=self._left | here,
        )


def follow(
    presence: Presence,
    file: EdgeFile,
    text: Callable[[], EdgeText],
    publisher: Publisher,
    wake: threading.Event,
    stop: threading.Event,
    *,
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> None:
    """Keep the edge on the task's table until ``stop`` is set, and acknowledge what is in force.

    What the edge refuses is tried again every `SAY_S` seconds; meanwhile the acknowledged version is the old one.
    When it ends it only falls silent: the edge goes on by the last table, and nobody follows.

    Args:
        presence: what is acknowledged.
        file: the edge's file.
        text: makes the file of the newest table.
        publisher: takes the acknowledgements (``gateway.v1``).
        wake: set when there may be a newer table, and with ``stop``.
        stop: ends it.
        now: the wall clock.
        new_id: makes UUIDv7 ids.
    """
    in_force: EdgeText | None = None
    refused = ""
    while not stop.is_set():
        wake.clear()
        try:
            wanted = text()
            if wanted != in_force:
                file.put(wanted)
                presence.takes_effect(wanted, now())
                log.info("table %d is in force", wanted.version)
                in_force, refused = wanted, ""
        except RatchetError as error:
            if str(error) != refused:
                refused = str(error)
                log.error("still on table %s: %s", in_force.version if in_force else "of before", error)
        if (word := presence.word(new_id(), now())) is not None:
            publisher.publish(word)
        wake.wait(SAY_S)

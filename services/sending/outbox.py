"""A bounded queue with one thread behind it, so that sending an event never holds an app up.

Events leave in order and in batches. What cannot go now stays at the head and is tried again; what
finds no room is dropped and counted. The thread starts with the first event. A forked child starts
over with an empty queue, since the events in it are the parent's to send, and with connections of its
own. At the interpreter's exit every queue gets a few seconds to run empty.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from ratchet.services.rules.sending import Outcome, Parcel, last_word, wait_s

log = logging.getLogger("ratchet.client")

BATCH_EVENTS = 500
BATCH_BYTES = 512 * 1024
"""Half of what a proxy such as nginx takes by default."""
_JOIN_S = 1.0


class Rejected(NamedTuple):
    """An event that will never be taken: whose it is, why not, and what it was."""

    id: str
    reason: str
    body: bytes


class Link(Protocol):
    """A connection to where events go; used by one thread."""

    def fit(self, waiting: deque[Parcel], most: int) -> int:
        """Count how many of the front go into one batch, ``most`` at the most and at least one."""

    def deliver(self, batch: Sequence[Parcel]) -> Outcome:
        """Try once to bring a batch over."""

    def close(self) -> None:
        """Let go of the connection."""


class Outbox:
    """The queue and its thread; every method may be called from any thread."""

    def __init__(
        self,
        connect: Callable[[], Link],
        *,
        queue_events: int,
        queue_bytes: int,
        linger_s: float,
        exit_timeout_s: float,
        on_error: Callable[[Rejected], object] | None,
    ) -> None:
        """Start empty, and without a thread.

        Args:
            connect: makes the connection, in the thread that uses it.
            queue_events: events that may wait, those in flight among them.
            queue_bytes: bytes that they may have.
            linger_s: how long a batch that is not full waits for company.
            exit_timeout_s: how long the interpreter's exit may wait for this queue.
            on_error: hears of each event that is refused, in the sending thread.
        """
        self._connect = connect
        self._queue_events = queue_events
        self._queue_bytes = queue_bytes
        self._linger_s = linger_s
        self.exit_timeout_s = exit_timeout_s
        self._on_error = on_error
        self.closed = False
        self.start_over()
        _LIVE.add(self)

    def start_over(self) -> None:
        """Forget the queue and the thread, as a forked child must: both are its parent's."""
        self._changed = threading.Condition()
        self._waiting: deque[Parcel] = deque()
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._flushing = 0
        self._hurry = False
        self._dropping = False
        self.accepted = self.refused = self.dropped = 0

    @property
    def waiting(self) -> int:
        """Events that are not settled yet."""
        return len(self._waiting)

    def offer(self, parcel: Parcel) -> bool:
        """Take one event if there is room; nothing is counted where there is none.

        Raises:
            RuntimeError: the queue was closed.
        """
        with self._changed:
            return self._take(parcel)

    def put(self, parcel: Parcel, timeout_s: float = 0.0) -> bool:
        """Take one event, waiting for room at most that long; without room it is dropped and counted.

        Raises:
            RuntimeError: as `offer`.
        """
        with self._changed:
            if self._take(parcel) or (timeout_s > 0 and self._changed.wait_for(lambda: self._take(parcel), timeout_s)):
                return True
            self.dropped += 1
            # the first of a series says it; the counter tells the rest
            first, self._dropping = not self._dropping, True
        if first:
            log.warning("the queue is full (%d events, %d bytes): new events are dropped", self.waiting, self._bytes)
        return False

    def _take(self, parcel: Parcel) -> bool:
        if self.closed:
            raise RuntimeError("the client is closed; allowed: events before close() or the end of its with block")
        size = len(parcel.body)
        if len(self._waiting) >= self._queue_events or self._bytes + size > self._queue_bytes:
            return False
        before = self._bytes
        self._waiting.append(parcel)
        self._bytes += size
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="ratchet-client", daemon=True)
            self._thread.start()
        elif len(self._waiting) in (1, BATCH_EVENTS) or before < BATCH_BYTES <= self._bytes:
            self._changed.notify_all()  # else the thread is busy, or lingers for more
        return True

    def hurry(self) -> None:
        """Let the next try begin at once, unless the server asked for the wait."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> int:
        """Wait until every event is settled, at most that long; returns how many are not."""
        with self._changed:
            self._flushing += 1
            self.hurry()
            self._changed.wait_for(lambda: self.closed or not self._waiting, timeout_s)
            self._flushing -= 1
            return len(self._waiting)

    def close(self) -> int:
        """Take and send nothing more; returns how many events were still waiting, and logs that."""
        with self._changed:
            left = len(self._waiting)
            first, self.closed = not self.closed, True
            self._changed.notify_all()
        _LIVE.discard(self)
        if first and left:
            log.error("closed with %d events that were not sent", left)
        return left

    def join(self) -> None:
        """Wait a moment for the thread to let go of its connection, after `close`."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        link = self._connect()
        try:
            failures, most = 0, BATCH_EVENTS
            while batch := self._next(link, most):
                outcome = last_word(link.deliver(batch), len(batch), failures)
                self._settle(batch, outcome)
                most = max(1, len(batch) // 2) if outcome.smaller or outcome.suspect else BATCH_EVENTS
                if outcome.smaller:
                    continue
                if not outcome.again:
                    if failures:
                        log.warning("events are taken again")
                    failures = 0
                    continue
                failures += 1
                if failures == 1:
                    log.warning("events wait and are sent again: %s", outcome.problem)
                self._rest(wait_s(failures, outcome.asked_s, random.random()), bool(outcome.asked_s))  # noqa: S311
        finally:
            link.close()

    def _next(self, link: Link, most: int) -> list[Parcel]:
        """Wait for events and give the next batch, which stays in the queue; nothing once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed)
            self._changed.wait_for(self._no_linger, self._linger_s)
            self._hurry = False
            return [] if self.closed else list(islice(self._waiting, link.fit(self._waiting, most)))

    def _no_linger(self) -> bool:
        full = len(self._waiting) >= BATCH_EVENTS or self._bytes >= BATCH_BYTES
        return full or self.closed or self._flushing > 0

    def _rest(self, seconds: float, asked: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.closed or (self._hurry and not asked), seconds)

    def _settle(self, batch: list[Parcel], outcome: Outcome) -> None:
        back = [batch[index] for index in outcome.again]
        with self._changed:
            for _ in batch:
                self._bytes -= len(self._waiting.popleft().body)
            self._waiting.extendleft(reversed(back))
            self._bytes += sum(len(parcel.body) for parcel in back)
            self.refused += len(outcome.refused)
            self.accepted += len(batch) - len(back) - len(outcome.refused)
            if 2 * len(self._waiting) < self._queue_events and 2 * self._bytes < self._queue_bytes:
                self._dropping = False
            self._changed.notify_all()
        for index, reason in outcome.refused.items():
            self._report(Rejected(batch[index].id, reason, batch[index].body))

    def _report(self, rejected: Rejected) -> None:
        log.error("event %s was refused: %s", rejected.id, rejected.reason)
        if self._on_error is None:
            return
        try:
            self._on_error(rejected)
        except Exception:  # the app's own code: its fault must not end the sending
            log.exception("on_error failed")


_LIVE: weakref.WeakSet[Outbox] = weakref.WeakSet()
_FORKING = threading.RLock()
_held: list[Outbox] = []


def _hold() -> None:
    """Before a fork no queue may be in the middle of a change."""
    _FORKING.acquire()
    _held[:] = list(_LIVE)
    for outbox in _held:
        outbox._changed.acquire()


def _go_on() -> None:
    for outbox in _held:
        outbox._changed.release()
    _held.clear()
    _FORKING.release()


def _start_over() -> None:
    global _FORKING
    _FORKING = threading.RLock()
    _held.clear()
    for outbox in list(_LIVE):
        outbox.start_over()


def _leave() -> None:
    """Give every queue its time, all from now on, and close it."""
    started = time.monotonic()
    leaving = list(_LIVE)
    for outbox in leaving:
        outbox.hurry()
    for outbox in leaving:
        outbox.flush(max(0.0, started + outbox.exit_timeout_s - time.monotonic()))
        outbox.close()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_start_over)

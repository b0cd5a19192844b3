"""Starts the local parts in order, keeps them alive, stops them in reverse.

`Supervisor.start` waits for each child to serve before the next one starts; `watch` (or
`run`, with the signals) restarts a child that dies and gives up on one that keeps dying.
A guard process (guard.py) ends the children if the supervisor is killed with SIGKILL.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ratchet.infra.embedded import guard
from ratchet.infra.embedded.child import Child, Running, spawn
from ratchet.infra.embedded.ports import free_port, port_taken
from ratchet.schemas.errors import StartError

__all__ = ["Child", "Notice", "State", "Supervisor", "free_port", "port_taken"]


class State(StrEnum):
    """What a `Notice` is about."""

    STARTING = "starting"
    WAITING = "waiting"
    READY = "ready"
    DIED = "died"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Notice:
    """Something that happened to a child.

    Args:
        child: its name.
        state: what happened; WAITING comes again and again while a child is not ready yet.
        seconds: since the child's process was started.
        text: a clause for a person: how it died, for the rest nothing.
    """

    child: str
    state: State
    seconds: float
    text: str = ""


class Supervisor:
    """The parent of the local parts.

    Args:
        progress: called with each `Notice`; a death is said once.
        tries: restarts in a row of one child before the supervisor gives up.
        within_s: a life at least this long, counted from readiness, ends the row.
        grace_s: from SIGTERM to SIGKILL.
        waiting_every_s: between two WAITING notices.
        clock, sleep: monotonic seconds, and waiting for some.
    """

    def __init__(
        self,
        progress: Callable[[Notice], None] = lambda _: None,
        *,
        tries: int = 3,
        within_s: float = 60.0,
        grace_s: float = 15.0,
        waiting_every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._progress = progress
        self._tries = tries
        self._within_s = within_s
        self._grace_s = grace_s
        self._waiting_every_s = waiting_every_s
        self._clock = clock
        self._sleep = sleep
        self._running: list[Running] = []
        self._guard: subprocess.Popen[bytes] | None = None
        self._stops = 0

    def start(self, child: Child) -> None:
        """Start a child and return when it serves.

        Raises:
            StartError: it cannot be started, died before it served (no second try: the reason
                is its own and will not go away), did not serve in time, a stop was asked for, or an
                earlier child kept dying meanwhile.
        """
        self._progress(Notice(child.name, State.STARTING, 0.0))
        running = Running(child, self._spawn(child), self._clock())
        self._running.append(running)
        said = 0.0
        while not self._became_ready(running):
            seconds = self._clock() - running.started_at
            if running.process.poll() is not None:
                self._bury(running)
                self._running.remove(running)
                raise StartError(f"{child.name} {running.epitaph()}; its log is {child.log_path}")
            if seconds > child.ready_timeout_s:
                raise StartError(
                    f"{child.name} does not answer after {child.ready_timeout_s:g} s; its log is {child.log_path}"
                )
            if self._stops:
                raise StartError(f"stopped while {child.name} was starting")
            if seconds - said >= self._waiting_every_s:
                said = seconds
                self._progress(Notice(child.name, State.WAITING, seconds))
            self._check(starting=running)
            self._sleep(0.05)

    def check(self) -> None:
        """Look at every child once: restart the dead, note the ready, count the failures.

        Raises:
            StartError: a child died once more after `tries` restarts in a row.
        """
        self._check()

    def _check(self, starting: Running | None = None) -> None:
        for running in list(self._running):
            if running is starting:
                continue
            seconds = self._clock() - running.started_at
            if (status := running.process.poll()) is not None:
                if (advice := running.child.final.get(status)) is not None:
                    self._let_go(running, advice)
                else:
                    self._restart(running, running.epitaph())
            elif (
                running.ready_at is None and not self._became_ready(running) and seconds > running.child.ready_timeout_s
            ):
                self._restart(running, f"did not answer within {running.child.ready_timeout_s:g} s")

    def watch(self, every_s: float = 0.2) -> None:
        """Check again and again until `request_stop`.

        Raises:
            StartError: as `check`.
        """
        while not self._stops:
            self.check()
            self._sleep(every_s)

    def run(self, children: Sequence[Child]) -> None:
        """Start the children, watch them until SIGINT or SIGTERM, stop them; for a main thread.

        Raises:
            StartError: a child did not start or kept dying; all others are stopped by then.
        """
        with self.signals():
            try:
                for child in children:
                    self.start(child)
                self.watch()
            except StartError:
                if not self._stops:
                    raise
            finally:
                self.stop()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Within it SIGINT and SIGTERM ask for a stop; a second one ends the grace."""
        before = {number: signal.signal(number, lambda *_: self.request_stop()) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def request_stop(self) -> None:
        """Ask for a stop, from any thread or a signal handler; twice means without grace."""
        self._stops += 1

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stops > 0

    def stop(self) -> None:
        """Stop all children, the last one started first: SIGTERM, after the grace SIGKILL."""
        while self._running:
            self._stop_one(self._running.pop())
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def stop_last(self, name: str) -> bool:
        """Stop one child ahead of the others if it is the one started last; returns whether it was.

        For a clean end in two steps: no more traffic comes in, then the rest finishes its work.
        """
        if not self._running or self._running[-1].child.name != name:
            return False
        self._stop_one(self._running.pop())
        return True

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _stop_one(self, running: Running) -> None:
        running.signal_leader(signal.SIGTERM)
        deadline = self._clock() + self._grace_s
        while running.process.poll() is None and self._clock() < deadline and self._stops < 2:
            self._sleep(0.02)
        self._bury(running)
        self._progress(Notice(running.child.name, State.STOPPED, self._clock() - running.started_at))

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        if self._guard is None:
            argv = [sys.executable, "-I", "-S", str(Path(guard.__file__))]
            self._guard = subprocess.Popen(argv, stdin=subprocess.PIPE, process_group=0)
        process = spawn(child)
        self._tell_guard(f"+{process.pid}\n")
        return process

    def _tell_guard(self, line: str) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        # a guard that somebody killed protects nobody, but the children still work
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode())
            self._guard.stdin.flush()

    def _bury(self, running: Running) -> None:
        """Kill what is left of the group, which may hold the port, and let the guard forget it."""
        running.kill_group()
        self._tell_guard(f"-{running.group}\n")

    def _became_ready(self, running: Running) -> bool:
        if not running.child.ready() or running.process.poll() is not None:
            return False
        running.ready_at = self._clock()
        self._progress(Notice(running.child.name, State.READY, running.ready_at - running.started_at))
        return True

    def _let_go(self, running: Running, advice: str) -> None:
        seconds = self._clock() - running.started_at
        self._bury(running)
        self._running.remove(running)
        self._progress(Notice(running.child.name, State.DIED, seconds, f"{running.epitaph()}; {advice}"))

    def _restart(self, running: Running, how: str) -> None:
        now = self._clock()
        self._bury(running)
        lived_s = 0.0 if running.ready_at is None else now - running.ready_at
        running.failures = 1 if lived_s >= self._within_s else running.failures + 1
        child = running.child
        if running.failures > self._tries:
            self._running.remove(running)
            self._progress(Notice(child.name, State.DIED, now - running.started_at, how))
            raise StartError(f"{child.name} {how}, {running.failures} times in a row; its log is {child.log_path}")
        self._progress(Notice(child.name, State.DIED, now - running.started_at, f"{how}; starting it again"))
        running.process = self._spawn(child)
        running.started_at, running.ready_at = now, None


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

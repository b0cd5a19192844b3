"""One supervised child process: started into a group and a log of its own, ended with its group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.schemas.errors import StartError

_TAIL = 4096


@dataclass(frozen=True)
class Child:
    """What to run and how to see that it serves.

    Args:
        name: what messages call it.
        argv: the command line, without a shell.
        env: the whole environment; None inherits.
        log_path: standard output and error are appended to it.
        ready: whether it serves now; asked again and again, so it must answer within a second or two.
        ready_timeout_s: the longest it may take to serve, at every start.
        final: exit statuses with which it is not started again, while the other children go on, and what
            to do then.
    """

    name: str
    argv: Sequence[str]
    log_path: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] | None = None
    ready_timeout_s: float = 60.0
    final: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Running:
    """A child and its present process."""

    child: Child
    process: subprocess.Popen[bytes]
    started_at: float
    ready_at: float | None = None
    failures: int = field(default=0)
    """Deaths in a row, none of them after a long enough life."""

    @property
    def group(self) -> int:
        """The process group; the leader's process id."""
        return self.process.pid

    def signal_leader(self, number: signal.Signals) -> None:
        """Signal the leader alone: it may have to end its own children in an order of its own."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL whatever is left of the group, and reap the leader."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)
        self.process.wait()

    def epitaph(self) -> str:
        """How it ended and its log's last line, as one clause."""
        code = self.process.returncode
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"ended with status {code}"
        )
        last = last_line(self.child.log_path)
        return f"{how}" + (f" ({last})" if last else "")


def spawn(child: Child) -> subprocess.Popen[bytes]:
    """Start the process in a group of its own, so that a terminal's Ctrl-C reaches the supervisor alone.

    Raises:
        StartError: no such program, or the log cannot be written.
    """
    try:
        child.log_path.parent.mkdir(parents=True, exist_ok=True)
        with child.log_path.open("ab") as log:
            return subprocess.Popen(
                list(child.argv),
                env=None if child.env is None else dict(child.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
    except OSError as error:
        raise StartError(f"{child.name} cannot be started: {error}") from error


def last_line(log: Path) -> str:
    """The last line with anything on it of a log file, for messages; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "")

"""A task's own functions, called in a process of their own that can be killed.

A thread cannot be ended and shares the interpreter's lock, so a function that hangs would hold its
caller for ever; a process that answers no more is killed and started again. It is no sandbox: the
functions are the operator's code (their names stand in ``ratchet.toml`` and nowhere else) and run with
the rights of the consumer, less its ``RATCHET_*`` environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ratchet.schemas.checks import Answer
from ratchet.schemas.errors import FunctionFailed, SettingsError

log = logging.getLogger("ratchet.functions")
START_S = 60.0
"""The longest that importing the functions may take."""
MAX_REPLY = 1 << 20


class Functions:
    """The process and the way to it; calls are one at a time, from any thread."""

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        *,
        failures: int = 3,
        pause_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the process and import every function.

        Args:
            names: ``package.module:function``.
            folder: of ``ratchet.toml``; modules beside it can be named.
            failures: times in a row that the process may hang or die before it is left alone …
            pause_s: … for this long, failing at once.
            monotonic: a clock that only goes forward, in seconds.

        Raises:
            SettingsError: a name that cannot be imported or called; one sentence.
        """
        self._names = list(dict.fromkeys(names))
        self._folder = folder
        self._failures_allowed = failures
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._failures = 0
        self._paused_until = float("-inf")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        try:
            self.versions = self._start()  # by name: the module's __version__, or a hash of its source
        except FunctionFailed as error:
            raise SettingsError(str(error)) from None

    def call(self, name: str, answer: Answer, timeout_s: float) -> object:
        """Call a function.

        Args:
            name: one of those that were loaded.
            answer: what it is called with.
            timeout_s: the longest it may take.

        Returns:
            What it returned, as JSON has it: a bool, a number, or a list of one and a reason.

        Raises:
            FunctionFailed: it raised, took too long, died, returned something else, or changed on disk.
        """
        line = json.dumps({"function": name, "timeout_s": timeout_s, "answer": answer.model_dump(mode="json")})
        with self._lock:
            if self._monotonic() < self._paused_until:
                raise FunctionFailed(f"left alone for a while after {self._failures_allowed} hangs or deaths in a row")
            if self._channel is None:
                self._start_again()
            said = self._ask(line.encode() + b"\n", timeout_s)
        if "failed" in said:
            raise FunctionFailed(str(said["failed"]))
        return said["value"]

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()

    def _ask(self, line: bytes, timeout_s: float) -> dict[str, object]:
        try:
            said = self._exchange(line, timeout_s)
        except TimeoutError:
            self._failed()
            raise FunctionFailed(f"took over {timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            self._failed()
            raise FunctionFailed(f"its process ended or said nonsense: {error}") from None
        self._failures = 0
        return said

    def _exchange(self, line: bytes, timeout_s: float) -> dict[str, object]:
        assert self._channel is not None
        deadline = self._monotonic() + timeout_s
        self._channel.settimeout(timeout_s)
        self._channel.sendall(line)
        reply = b""
        while not reply.endswith(b"\n"):
            left = deadline - self._monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            part = self._channel.recv(65_536)
            if not part:
                raise ConnectionError("it closed the connection")
            reply += part
            if len(reply) > MAX_REPLY:
                raise ValueError(f"a reply of over {MAX_REPLY} bytes")
        said = json.loads(reply)
        if not isinstance(said, dict):
            raise ValueError("a reply that is no object")
        return said

    def _failed(self) -> None:
        self._stop()
        self._failures += 1
        if self._failures >= self._failures_allowed:
            self._failures = 0
            self._paused_until = self._monotonic() + self._pause_s
            log.warning("the process of %s hangs or dies; left alone for %g s", ", ".join(self._names), self._pause_s)

    def _start_again(self) -> None:
        versions = self._start()
        if versions != self.versions:
            self._stop()
            changed = [name for name in self._names if versions.get(name) != self.versions.get(name)]
            raise FunctionFailed(f"{', '.join(changed)} changed on disk; restart the consumer to use it")

    def _start(self) -> dict[str, str]:
        ours, theirs = socket.socketpair()
        env = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # not from whatever folder the consumer was started in
                    "-m",
                    "ratchet.infra.function_host",
                    str(theirs.fileno()),
                    str(self._folder.absolute()),
                    *self._names,
                ],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=2,  # what they print must not end up between the lines of a command's --json
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._channel = ours
        try:
            said = self._exchange(b"", START_S)
        except (OSError, ValueError) as error:
            self._stop()
            raise FunctionFailed(f"{', '.join(self._names)}: the process did not start: {error}") from None
        if "problem" in said:
            self._stop()
            raise FunctionFailed(str(said["problem"]))
        return {name: str(version) for name, version in said.items()}

    def _stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

"""The demo's voice: one progress line for each slow step, on standard error."""

from __future__ import annotations

import sys
import time


class Say:
    """Prints steps with the seconds since the start; rewrites the running line on a terminal.

    Where there is no terminal a running line is printed at most every ``quiet_s`` seconds, so a
    log stays readable.
    """

    def __init__(self, quiet_s: float = 15.0) -> None:
        self._start = time.monotonic()
        self._quiet = quiet_s
        self._last = 0.0
        self._terminal = sys.stderr.isatty()
        self._open = False

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def title(self, text: str) -> None:
        """Open a new part of the demo."""
        self.line("")
        self.line(f"── {text}")

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        stamp = f"[{self.seconds():5.0f} s] " if text else ""
        print(f"{stamp}{text}", file=sys.stderr, flush=True)  # noqa: T201 - this is the demo's output
        self._last = time.monotonic()

    def running(self, text: str) -> None:
        """Show where a slow step stands."""
        if self._terminal:
            self._clear()
            print(f"[{self.seconds():5.0f} s] {text[:110]}", end="", file=sys.stderr, flush=True)  # noqa: T201
            self._open = True
        elif time.monotonic() - self._last >= self._quiet:
            self.line(text)

    def _clear(self) -> None:
        if self._open:
            print("\r\033[K", end="", file=sys.stderr)  # noqa: T201
            self._open = False

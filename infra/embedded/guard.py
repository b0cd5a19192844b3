"""The last one out: ends the supervisor's children when the supervisor itself is killed.

Started by the supervisor as a plain script (``python -I -S guard.py``), so it imports
nothing but the standard library. Lines on its standard input name process groups,
``+123`` started and ``-123`` ended. The pipe's end closes with the supervisor, however
that dies; every group still named then gets SIGTERM and, two seconds later, SIGKILL.
This works on every POSIX system and reaches grandchildren, which Linux's PR_SET_PDEATHSIG
does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

GRACE_S = 2.0


def main() -> None:
    """Read lines until the pipe closes, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # those are for the supervisor to act on
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(_alive(group) for group in groups):
        time.sleep(0.05)
    _signal(groups, signal.SIGKILL)


def _signal(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()

"""The process in which a task's own functions run: started by `functions`, one call at a time over a socket.

``python -m ratchet.infra.function_host FD FOLDER NAME…`` imports every function once, says on the socket
which version each has, then answers lines. What the functions print goes to standard error.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ratchet.schemas.checks import Answer

ORPHAN_S = 5.0
"""How long over its limit a call may run before the kernel ends this process, should nobody else do."""


def main(argv: Sequence[str]) -> None:
    """Load the functions, then call them until the socket closes."""
    descriptor, folder, *names = argv
    sys.path.append(folder)  # last: a file there must not stand in for an installed module
    with socket.socket(fileno=int(descriptor)) as channel, channel.makefile("rwb") as stream:
        loaded: dict[str, Callable[[Answer], object]] = {}
        said: dict[str, Any] = {}
        for name in names:
            try:
                loaded[name], said[name] = _load(name)
            except _Unusable as error:
                said = {"problem": str(error)}
                break
        _say(stream, said)
        for line in stream:
            asked = json.loads(line)
            _say(stream, _call(loaded[asked["function"]], asked))


class _Unusable(Exception):
    """A name that gives no function to call; says why."""


def _load(name: str) -> tuple[Callable[[Answer], object], str]:
    path, _, last = name.replace(":", ".").rpartition(".")
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise _Unusable(f"{name}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, last, None)
    if not callable(function):
        raise _Unusable(f"{name}: {path} has no function {last!r}")
    if inspect.iscoroutinefunction(function):
        raise _Unusable(f"{name}: an async function; allowed: a plain one")
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError) as error:
        raise _Unusable(f"{name}: is called with one argument, the answer, and cannot be: {error}") from error
    version = getattr(module, "__version__", None)
    if version is None:
        try:
            version = hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:16]
        except (OSError, TypeError) as error:
            raise _Unusable(f"{name}: {path} has neither source nor __version__; give it a __version__") from error
    return function, str(version)


def _call(function: Callable[[Answer], object], asked: dict[str, Any]) -> dict[str, Any]:
    # a hung call outlives a parent that was killed; the kernel's timer ends it even inside C code
    signal.setitimer(signal.ITIMER_REAL, asked["timeout_s"] + ORPHAN_S)
    try:
        value = function(Answer.model_validate(asked["answer"]))
    except Exception as error:  # noqa: BLE001 - whatever it raises means the same: it cannot say
        return {"failed": f"raised {type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    parts = value if isinstance(value, tuple | list) and len(value) == 2 else [value]
    if not all(isinstance(part, bool | int | float | str) for part in parts):
        return {"failed": f"returned {type(value).__name__}; allowed: a bool, a number from 0 to 1, or with a reason"}
    return {"value": value}


def _say(stream: Any, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value).encode() + b"\n")
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

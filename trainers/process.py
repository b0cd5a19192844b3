"""One training run in a process group of its own: started, watched, ended with whoever watches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import orjson

from ratchet.infra.embedded import guard
from ratchet.infra.embedded.child import last_line
from ratchet.schemas.errors import TrainingError, TrainingInterrupted
from ratchet.trainers.training import checkpoints, launching, telling
from ratchet.trainers.training.job import EXIT_TRAINING, PROGRESS_FILE, RESULT_FILE

Progress = dict[str, Any]
"""A line of progress.jsonl: ``step, steps, loss, …, eta_s``; docs/training.md has all of them."""

LAUNCHER_FAILED = 1
"""Exit status of what starts several processes, whatever one of them ended with."""
POLL_S = 0.5
GRACE_S = 5.0


def result_of(output: Path) -> dict[str, Any] | None:
    """What a run that ended left behind; None where it has not ended, or left no adapter."""
    try:
        result = orjson.loads((output / RESULT_FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return result if isinstance(result, dict) and "weights_sha256" in result else None


async def run(
    job: Path,
    output: Path,
    on_progress: Callable[[Progress], None],
    *,
    python: str = sys.executable,
    inherits: Collection[int] = (),
) -> dict[str, Any]:
    """Train in a child process and wait for it.

    The child never outlives this process: it is ended when this coroutine is cancelled, and by a
    guard process when this process itself is killed.

    Args:
        job: the job file.
        output: the job's output folder; the child's log goes to ``train.log`` in it.
        on_progress: called with every progress line, in order, about twice a second.
        python: the interpreter, in which `ratchet` is installed.
        inherits: file descriptors that the child keeps open.

    Returns:
        result.json of the run.

    Raises:
        TrainingError: the run stopped itself, or cannot be started; the text says why.
        TrainingInterrupted: it died without a reason of its own, so that another try may end better.
    """
    try:
        return await _run(job, output, on_progress, python, inherits)
    except OSError as error:
        raise TrainingError(f"{error.filename or output}: {error.strerror}: the run cannot be started") from error


async def _run(
    job: Path, output: Path, on_progress: Callable[[Progress], None], python: str, inherits: Collection[int]
) -> dict[str, Any]:
    log, told = _clean(output)
    watcher = await asyncio.create_subprocess_exec(
        python, "-I", "-S", guard.__file__, stdin=asyncio.subprocess.PIPE, process_group=0
    )
    assert watcher.stdin is not None
    try:
        with log.open("ab") as sink:
            child = await asyncio.create_subprocess_exec(
                *launching.argv(python, job),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                process_group=0,
                pass_fds=inherits,
            )
        watcher.stdin.write(f"+{child.pid}\n".encode())
        await watcher.stdin.drain()
        try:
            code = await _watch(child, output / PROGRESS_FILE, told, on_progress)
        finally:
            if child.returncode is None:
                await _end(child)
        watcher.stdin.write(f"-{child.pid}\n".encode())
    finally:
        watcher.stdin.close()
        await watcher.wait()
    result = result_of(output)
    if code == 0 and result is not None:
        return result
    if code in (EXIT_TRAINING, LAUNCHER_FAILED) and (why := _own_words(output)):
        raise TrainingError(why)
    raise TrainingInterrupted(_epitaph(code, log))


def _clean(output: Path) -> tuple[Path, int]:
    """Take away what an earlier, killed attempt left, unless this one goes on from it.

    Returns:
        The log's path, and the last step that the earlier attempt told of.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / RESULT_FILE).unlink(missing_ok=True)
    if not checkpoints.sealed_step(output):
        (output / PROGRESS_FILE).unlink(missing_ok=True)
    return output / "train.log", _read_progress(output / PROGRESS_FILE, 0, lambda _: None)


async def _watch(
    child: asyncio.subprocess.Process, file: Path, told: int, on_progress: Callable[[Progress], None]
) -> int:
    ended = asyncio.create_task(child.wait())
    try:
        while True:
            await asyncio.wait({ended}, timeout=POLL_S)
            told = _read_progress(file, told, on_progress)
            if ended.done():
                return ended.result()
    finally:
        ended.cancel()


def _read_progress(file: Path, told: int, on_progress: Callable[[Progress], None]) -> int:
    """Tell of the steps after the last one told of; a run that goes on writes some of its lines again."""
    for line in telling.lines(file):
        if line["step"] > told:
            on_progress(line)
            told = int(line["step"])
    return told


async def _end(child: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), GRACE_S)
            return


def _own_words(output: Path) -> str:
    """Why a run stopped itself; empty where it did not come to say so."""
    with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError, KeyError):
        return str(orjson.loads((output / RESULT_FILE).read_bytes())["error"])
    return ""


def _epitaph(code: int, log: Path) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    if code == -signal.SIGKILL:
        how += " (out of memory?)"
    return f"the training process {how}: {last_line(log) or 'it said nothing'}; its log: {log}"

"""One training a task on a home at a time, whoever started it: the worker, another worker, or a person."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ratchet.schemas.errors import TrainingError

log = logging.getLogger("ratchet.trainer")
LOOK_S = 0.5
"""Seconds between two looks whether the lock is free."""


@asynccontextmanager
async def single_flight(home: Path, task: str, job_id: str) -> AsyncIterator[int]:
    """Wait for a task's turn and hold it.

    The lock belongs to the open file, so a child process that inherits the descriptor holds it too: where this
    process is killed, the turn ends with the last process of the job, not before.

    Args:
        home: Ratchet's home; workers of one task share it.
        task: whose turn.
        job_id: who holds it, for whoever waits.

    Yields:
        The file descriptor, to be given to the training process.

    Raises:
        TrainingError: the lock's file cannot be written.
    """
    file = home / "jobs" / f".{task}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}: no training can be held apart from another") from error
    try:
        await _take(held, task, job_id)
        _sign(held, job_id)
        yield held
    finally:
        os.close(held)


async def _take(held: int, task: str, job_id: str) -> None:
    said = False
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                other = os.pread(held, 64, 0).decode(errors="replace") or "another job"
                log.warning("job %s waits: task %s is being trained by job %s", job_id, task, other)
                said = True
            await asyncio.sleep(LOOK_S)
        else:
            return


def _sign(held: int, job_id: str) -> None:
    """Say whose turn it is; a disk that is too full for that is the job's own affair."""
    try:
        os.ftruncate(held, 0)
        os.pwrite(held, job_id.encode(), 0)
    except OSError as error:
        log.info("job %s holds its task's turn unsigned: %s", job_id, error.strerror)

"""A training run that is started until it ends by itself, with a cap on starts that get nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from ratchet.schemas.errors import TrainingError, TrainingInterrupted
from ratchet.schemas.training_policy import TrainingPolicy
from ratchet.trainers import process
from ratchet.trainers.registry import file_sha256, weights_in, write_whole
from ratchet.trainers.rules.attempts import Attempts, begin
from ratchet.trainers.training import checkpoints
from ratchet.trainers.training.job import ADAPTER_DIR

log = logging.getLogger("ratchet.trainer")
ATTEMPTS_FILE = "attempts.json"


async def run(
    job: Path,
    folder: Path,
    policy: TrainingPolicy,
    *,
    started: Callable[[str], None],
    on_progress: Callable[[process.Progress], None],
    python: str,
    inherits: Collection[int],
) -> dict[str, Any]:
    """Train as a job file says, or take the result of an earlier start of the same job.

    Starts are counted on disk before they happen, so one that takes the whole machine down counts too.

    Args:
        job: the job file.
        folder: the job's folder.
        policy: how often, and how long to wait in between.
        started: called at every start with what there is to say of it.
        on_progress: called with every progress line.
        python: the interpreter.
        inherits: file descriptors that the training process keeps open.

    Returns:
        result.json of the run.

    Raises:
        TrainingError: the run stopped itself, or was interrupted as often as the policy allows.
    """
    if (result := finished(folder)) is not None:
        return result
    while True:
        attempt = _count(folder, policy.max_attempts)
        started(f"attempt {attempt.n} of {policy.max_attempts}" if attempt.n > 1 else "")
        try:
            return await process.run(job, folder, on_progress, python=python, inherits=inherits)
        except TrainingInterrupted as error:
            if attempt.n >= policy.max_attempts:
                raise TrainingError(_enough(policy.max_attempts, str(error))) from error
            wait_s = policy.retry_wait_s * 2 ** (attempt.n - 1)
            log.warning("%s; tried again in %g s (start %d of %d)", error, wait_s, attempt.n + 1, policy.max_attempts)
            await asyncio.sleep(wait_s)


def finished(folder: Path) -> dict[str, Any] | None:
    """The result of a run that ended, where its weights are still those that it wrote; else it is to be done again."""
    result = process.result_of(folder)
    if result is None:
        return None
    weights = weights_in(folder / ADAPTER_DIR)
    try:
        whole = file_sha256(weights) == result["weights_sha256"]
    except OSError as error:
        log.warning("%s: %s: the job is trained again", weights, error.strerror)
        return None
    if not whole:
        log.warning("%s: not the weights that the run wrote (sha256 differs): the job is trained again", weights)
        return None
    return result


def _count(folder: Path, cap: int) -> Attempts:
    file = folder / ATTEMPTS_FILE
    try:
        before = Attempts(**orjson.loads(file.read_bytes())) if file.is_file() else Attempts()
    except (TypeError, orjson.JSONDecodeError) as error:
        raise TrainingError(f"{file}: no count of starts ({error}); remove it to start again from one") from None
    now = begin(before, checkpoints.sealed_step(folder))
    if now.n > cap:
        raise TrainingError(_enough(cap, "each time the worker was ended with it"))
    try:
        write_whole(file, orjson.dumps(asdict(now)))
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}: the start cannot be counted") from error
    return now


def _enough(cap: int, why: str) -> str:
    return f"started {cap} times without getting further, which is the task's max_attempts: {why}"

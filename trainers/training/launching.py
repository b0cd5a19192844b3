"""A run in one process, or in several that `accelerate launch` starts; which of them this one is."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from ratchet.trainers.registry import write_whole
from ratchet.trainers.rules.launching import accelerate_config
from ratchet.trainers.training.job import TrainingJob

TRAINER = "ratchet.trainers.training.run"
CONFIG_FILE = "accelerate.json"
RANK = "RANK"
"""Of the environment: the number of a process among several, from 0; not set where there is one."""


def argv(python: str, job_file: Path) -> list[str]:
    """The command line of a job's run; writes accelerate's configuration beside the job file where that starts it."""
    run = ["-m", TRAINER, "--job", str(job_file)]
    recipe = TrainingJob.model_validate_json(job_file.read_bytes()).recipe
    if recipe.distributed is None:
        return [python, *run]
    config = job_file.with_name(CONFIG_FILE)
    told = accelerate_config(recipe.distributed, recipe.gradient_accumulation)
    write_whole(config, json.dumps(told, indent=2, sort_keys=True).encode())
    return [python, "-m", "accelerate.commands.launch", "--config_file", str(config), *run]


def of_this_process(job: TrainingJob) -> TrainingJob:
    """The job as this one of several processes does it.

    The first writes where the job says; the others go through the same steps and write theirs to a folder beside,
    which nobody reads. Each ends when the process that started it does, however that ended.
    """
    rank = int(os.environ.get(RANK, "0"))
    if RANK in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    return job if rank == 0 else job.model_copy(update={"output": job.output / f".rank{rank}"})

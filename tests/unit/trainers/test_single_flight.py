"""A task's turn: held by one job at a time, and to the end of that job's last process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from ratchet.trainers.single_flight import single_flight

HOLDER = """
import asyncio, subprocess, sys, time
from pathlib import Path
from ratchet.trainers.single_flight import single_flight

async def hold():
    async with single_flight(Path(sys.argv[1]), "support", "first") as turn:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(turn,), stdout=subprocess.DEVNULL)
        print(child.pid, flush=True)
        time.sleep(60)

asyncio.run(hold())
"""


async def _is_free(home: Path, task: str) -> bool:
    try:
        async with asyncio.timeout(0.2), single_flight(home, task, "second"):
            return True
    except TimeoutError:
        return False


async def test_two_jobs_of_a_task_take_turns_and_two_tasks_do_not(tmp_path: Path) -> None:
    """The second job of a task waits until the first is done; another task's is not held up."""
    async with single_flight(tmp_path, "support", "first"):
        assert not await _is_free(tmp_path, "support")
        assert await _is_free(tmp_path, "billing")
    assert await _is_free(tmp_path, "support")


async def test_a_killed_worker_s_turn_lasts_as_long_as_its_training_process(tmp_path: Path) -> None:
    """kill -9 of the worker frees nothing while the training process that inherited the lock lives."""
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, str(tmp_path), stdout=PIPE)
    assert holder.stdout is not None
    child = int(await holder.stdout.readline())
    try:
        holder.kill()
        await holder.wait()
        assert not await _is_free(tmp_path, "support")
    finally:
        os.kill(child, signal.SIGKILL)
    async with asyncio.timeout(10), single_flight(tmp_path, "support", "second"):
        assert (tmp_path / "jobs" / ".support.lock").read_text() == "second"

"""Checkpoints that a killed run goes on from: sealed by their hashes, and of this very job.

A checkpoint is what transformers' Trainer writes (weights, optimizer, scheduler, random states, place in the data).
Its seal is written last and on disk before it counts, so one that was torn by a kill, or that a disk has spoilt, is
told from a good one. The states that are pickles are read by torch with ``weights_only``, and never from anywhere but
the job's own folder (docs/decisions/033-checkpoints-are-sealed.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ratchet.trainers.registry import write_whole
from ratchet.trainers.training.job import TrainingJob

PREFIX = "checkpoint-"
SEAL_FILE = "seal.json"
KEPT = 2
"""So many newest ones stay: one to go on from, and one for the case that its disk spoils that."""
PARTS = ("torch", "transformers", "trl", "peft")
"""Another version of one of these does not go on where the old one stopped."""
UNLIKE = {"checkpoint_s"}
"""Fields of the recipe that change nothing of what comes out."""

Needs = Callable[[int], int | None]
"""The step whose checkpoint must be good beside the one of a step: the best so far, whose weights may be kept."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A good one: its folder, the step after which it was made, and the seconds that the run had taken by then."""

    folder: Path
    step: int
    seconds: float


def fingerprint(job: TrainingJob) -> str:
    """What a run comes out of, as one hash: recipe, rows, base model's folder, and the libraries that train."""
    files = [job.dataset] + ([job.holdout] if job.holdout else [])
    made_of = {
        "recipe": job.recipe.model_dump(mode="json", exclude=UNLIKE),
        "base_model": str(job.base_model),
        "reward": job.reward.model_dump(mode="json") if job.reward else None,
        "rows": [_sha256(file) for file in files],
        "parts": {name: version(name) for name in PARTS},
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def seal(folder: Path, job: str, seconds: float) -> None:
    """Write the hashes of a checkpoint's files, all of them on disk first.

    Args:
        folder: the checkpoint.
        job: the job's `fingerprint`.
        seconds: that the run has taken so far.
    """
    (folder / SEAL_FILE).unlink(missing_ok=True)
    hashes = {}
    for file in _files(folder):
        with file.open("rb") as raw:
            os.fsync(raw.fileno())
        hashes[str(file.relative_to(folder))] = _sha256(file)
    for made in [folder, *(entry for entry in folder.rglob("*") if entry.is_dir())]:
        _sync(made)
    value = {"job": job, "seconds": round(seconds, 3), "sha256": hashes}
    write_whole(folder / SEAL_FILE, json.dumps(value, indent=2, sort_keys=True).encode())
    _sync(folder)
    _sync(folder.parent)


def flaw(folder: Path, job: str) -> str | None:
    """Why a checkpoint cannot be gone on from; None where it is what was sealed."""
    try:
        sealed = json.loads((folder / SEAL_FILE).read_bytes())
        hashes: dict[str, str] = dict(sealed["sha256"])
        if sealed["job"] != job:
            return "it is of another recipe, other rows, another base model or other versions of the libraries"
        if {str(file.relative_to(folder)) for file in _files(folder)} != hashes.keys():
            return "its files are not those that were sealed"
        spoilt = [name for name, sha256 in hashes.items() if _sha256(folder / name) != sha256]
    except FileNotFoundError:
        return "it has no seal: the run ended while it was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it cannot be read ({error})"
    return f"{', '.join(spoilt)}: not what was sealed (sha256 differs)" if spoilt else None


def newest(output: Path, job: str, say: Callable[[str], None], needs: Needs = lambda _: None) -> Checkpoint | None:
    """The newest checkpoint of a job that can be gone on from; those that cannot are deleted.

    Args:
        output: the job's output folder.
        job: the job's `fingerprint`.
        say: told of each one that is passed over, and why.
        needs: what must be good beside it.
    """
    for folder in _folders(output):
        why = flaw(folder, job)
        best = needs(_step(folder))
        if why is None and best is not None and (spoilt := flaw(folder_of(output, best), job)):
            why = f"of the best step before it, {best}: {spoilt}"
        if why is None:
            sealed = json.loads((folder / SEAL_FILE).read_bytes())
            return Checkpoint(folder, _step(folder), float(sealed["seconds"]))
        say(f"checkpoint of step {_step(folder)} passed over: {why}")
        shutil.rmtree(folder)
    return None


def keep(output: Path, newest_ones: int, needs: Needs = lambda _: None) -> None:
    """Delete all but so many newest checkpoints, and but those that these need, see `newest`."""
    folders = _folders(output)
    needed = {needs(_step(folder)) for folder in folders[:newest_ones]}
    for folder in folders[newest_ones:]:
        if _step(folder) not in needed:
            shutil.rmtree(folder)


def sealed_step(output: Path) -> int:
    """The step of the newest checkpoint that an earlier attempt sealed, good or not; 0 where there is none."""
    return max((_step(folder) for folder in _folders(output) if (folder / SEAL_FILE).is_file()), default=0)


def callback(output: Path, job: str, every_s: float, began: float, needs: Needs) -> Any:
    """A callback that has the trainer make a checkpoint when it is time, seals it and deletes older ones.

    Args:
        output: the job's output folder.
        job: the job's `fingerprint`.
        every_s: seconds between two; 0: none.
        began: when the run began (`time.monotonic`), less what earlier attempts took.
        needs: what is kept beside the newest.
    """
    from transformers import TrainerCallback

    class Checkpoints(TrainerCallback):  # type: ignore[misc]
        made = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if every_s and state.global_step < state.max_steps and time.monotonic() - self.made >= every_s:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(folder_of(output, state.global_step), job, time.monotonic() - began)
            keep(output, KEPT, needs)
            self.made = time.monotonic()

    return Checkpoints()


def folder_of(output: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return output / f"{PREFIX}{step}"


def _folders(output: Path) -> list[Path]:
    """The checkpoints' folders, the newest first; a link is none."""
    if not output.is_dir():
        return []
    found = [
        entry
        for entry in output.iterdir()
        if entry.name.startswith(PREFIX)
        and entry.name.removeprefix(PREFIX).isdecimal()
        and entry.is_dir()
        and not entry.is_symlink()
    ]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def _files(folder: Path) -> Iterator[Path]:
    """The files of a checkpoint but its seal.

    Raises:
        ValueError: there is something else than plain files and folders.
    """
    for entry in sorted(folder.rglob("*")):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ValueError(f"{entry.name} is no plain file")
        if entry.is_file() and entry != folder / SEAL_FILE:
            yield entry


def _sha256(file: Path) -> str:
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Have a folder's entries on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Takes away the files of retired adapters, and what killed and ended jobs left; names stay taken for ever."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import derived_id
from ratchet.trainers.registry import MANIFEST, ORIGIN, SCRATCH, write_whole

OUTCOME = "outcome.json"


def tombstone(adapter: Adapter, reason: str, now: datetime) -> Adapter:
    """The manifest of an adapter whose files go: all that it said before, and why they went."""
    if adapter.status == "retired":
        return adapter
    fresh = derived_id(int(now.timestamp() * 1000), "retired", adapter.name)
    return adapter.model_copy(update={"id": fresh, "at": now, "status": "retired", "reason": reason})


def bury(folder: Path, gone: Adapter) -> int:
    """Leave a tombstone in an adapter's folder and take everything else away; returns the bytes that were freed.

    The folder stays: numbers are counted by it, and a job that is repeated finds its name there.

    Raises:
        TrainingError: the folder cannot be changed; doing it again goes on.
    """
    with _told(folder):
        # the word first: a folder without files whose manifest does not say why would look damaged
        write_whole(folder / MANIFEST, gone.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode())
        return _clear(folder, (MANIFEST, ORIGIN))


def loadable_bytes(folder: Path) -> int:
    """What `bury` would free."""
    if not folder.is_dir():
        return 0
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.name not in (MANIFEST, ORIGIN))


def scratch(home: Path, before: datetime) -> list[Path]:
    """Folders that a process which was killed while it placed or pulled an adapter left, older than an instant."""
    found = (home / "adapters").glob(f"{SCRATCH}*")
    return sorted(path for path in found if path.lstat().st_mtime < before.timestamp())


def ended_jobs(home: Path, keep: int) -> list[Path]:
    """Folders of jobs that ended and have something to give back, less the ``keep`` that ended last."""
    ended = [path.parent for path in (home / "jobs").glob(f"*/{OUTCOME}")]
    ended.sort(key=lambda path: (path / OUTCOME).lstat().st_mtime, reverse=True)
    return sorted(path for path in ended[keep:] if _beside_json(path))


def empty_job(folder: Path) -> int:
    """Take a job's weights, rows and log away; returns the bytes that were freed.

    Its JSON files stay: how it ended is told again if its request comes again, instead of training once more.

    Raises:
        TrainingError: the folder cannot be changed.
    """
    with _told(folder):
        return sum(_remove(path) for path in _beside_json(folder))


def remove_scratch(folder: Path) -> int:
    """Remove an abandoned folder; returns the bytes that were freed.

    Raises:
        TrainingError: it cannot be removed.
    """
    with _told(folder):
        return _remove(folder)


def _beside_json(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".json"]


def _clear(folder: Path, but: tuple[str, ...]) -> int:
    return sum(_remove(path) for path in folder.iterdir() if path.name not in but)


def _remove(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        size = sum(one.lstat().st_size for one in path.rglob("*") if not one.is_dir())
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size
    path.unlink()
    return size


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"{error.filename or folder}: {error.strerror}: it cannot be removed") from error

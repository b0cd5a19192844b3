"""The registry: adapters under names that are given once, with a manifest that says what they are made of.

``home/adapters/<task>@vN-<sha8>/`` holds the weights (safetensors only), PEFT's configuration (of a whole model its own
and its tokenizer), ``origin.json`` (which job) and, once registered, ``manifest.json`` (the `Adapter` event).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from ratchet.consumers.calibration import Questions
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import InvalidEvent, TrainingError
from ratchet.schemas.events import Adapter, Method
from ratchet.schemas.ids import ADAPTER_NAME, adapter_name, derived_id
from ratchet.trainers.rules.weights import ADAPTER_WEIGHTS, MODEL_CONFIG, MODEL_FILES, MODEL_WEIGHTS, unservable

WEIGHTS = ADAPTER_WEIGHTS
CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
ORIGIN = "origin.json"
SCRATCH = ".placing-"
"""How the folder of an adapter that is being placed begins; what a killed process left is swept up."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter's files under its final name; not registered yet."""

    name: str
    folder: Path
    weights_sha256: str
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 by name of what may be loaded from the folder."""
    served_as: str = ""
    """A provider's id of the model, which has no weights here; their hash is then that id's."""


def place(home: Path, task: str, job_id: str, made: Path, taken: Iterable[str]) -> Placed:
    """Copy a trained adapter to its final folder under the task's next number.

    A job that was placed before gets the same name again, so a repeated job makes no second adapter.

    Args:
        home: Ratchet's home.
        task: the task that it was trained for.
        job_id: the training job.
        made: PEFT's output folder.
        taken: names that the task already used, e.g. those in ClickHouse.

    Raises:
        TrainingError: the folder has no safetensors weights or no configuration, or cannot be copied.
    """
    shelf = home / "adapters"
    try:
        with _locked(shelf):
            known = [path for path in shelf.iterdir() if ADAPTER_NAME.match(path.name)]
            for folder in known:
                origin = _origin(folder)
                if origin.get("job_id") == job_id:
                    return Placed(folder.name, folder, origin["weights_sha256"], origin.get("files", {}))
            number = next_number(task, [*taken, *(path.name for path in known)])
            return _copy(shelf, task, number, job_id, made)
    except OSError as error:
        raise TrainingError(f"{error.filename or shelf}: {error.strerror}: the adapter cannot be stored") from error


def place_served(home: Path, task: str, job_id: str, served_as: str, taken: Iterable[str]) -> Placed:
    """Give a provider's model the task's next number; a job that was placed before gets the same name again.

    Args:
        home: Ratchet's home.
        task: the task that it was trained for.
        job_id: the training job.
        served_as: the provider's id of it.
        taken: names that the task already used.

    Raises:
        TrainingError: it cannot be noted.
    """
    shelf = home / "adapters"
    sha256 = hashlib.sha256(served_as.encode()).hexdigest()
    try:
        with _locked(shelf):
            known = [path for path in shelf.iterdir() if ADAPTER_NAME.match(path.name)]
            for folder in known:
                if _origin(folder).get("job_id") == job_id:
                    return Placed(folder.name, folder, sha256, served_as=served_as)
            number = next_number(task, [*taken, *(path.name for path in known)])
            folder = shelf / adapter_name(task, number, sha256)
            scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=shelf))
            (scratch / ORIGIN).write_bytes(
                orjson.dumps({"job_id": job_id, "weights_sha256": sha256, "served_as": served_as})
            )
            scratch.chmod(0o755)
            scratch.rename(folder)
            return Placed(folder.name, folder, sha256, served_as=served_as)
    except OSError as error:
        raise TrainingError(f"{error.filename or shelf}: {error.strerror}: the model cannot be noted") from error


def _origin(folder: Path) -> dict[str, Any]:
    """Which job placed an adapter; nothing for one that came another way (its number counts all the same)."""
    try:
        value = orjson.loads((folder / ORIGIN).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def next_number(task: str, names: Iterable[str]) -> int:
    """One more than the highest number that a task's adapters ever had."""
    matches = (ADAPTER_NAME.match(name) for name in names)
    return 1 + max((int(found["number"]) for found in matches if found and found["task"] == task), default=0)


def _copy(shelf: Path, task: str, number: int, job_id: str, made: Path) -> Placed:
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=shelf))
    try:
        # Pickled weights (.bin, .pt) run code when they are loaded: they never enter the registry.
        weights = weights_in(made).name
        whole = weights == MODEL_WEIGHTS
        config = MODEL_CONFIG if whole else CONFIG
        beside = [name for name in MODEL_FILES if whole and (made / name).is_file()]
        for name in (weights, config, *beside):
            if not (made / name).is_file():
                raise TrainingError(f"{made}: no {name}; weights are stored as safetensors with their configuration")
            shutil.copyfile(made / name, scratch / name)
        files = {name: file_sha256(scratch / name) for name in (weights, config, *beside)}
        sha256 = files[weights]
        (scratch / ORIGIN).write_bytes(orjson.dumps({"job_id": job_id, "weights_sha256": sha256, "files": files}))
        scratch.chmod(0o755)
        folder = shelf / adapter_name(task, number, sha256)
        scratch.rename(folder)
        return Placed(folder.name, folder, sha256, files)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def weights_in(folder: Path) -> Path:
    """The file that has, or would have, the weights of what was trained: a whole model's, or an adapter's."""
    return folder / (MODEL_WEIGHTS if (folder / MODEL_WEIGHTS).is_file() else WEIGHTS)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def register(
    placed: Placed,
    *,
    task: str,
    job_id: str,
    at: datetime,
    method: Method,
    base_model: str,
    dataset: str,
    dataset_sha256: str,
    parents: list[str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    evaluation: Mapping[str, Any],
    rejected: str | None = None,
) -> Adapter:
    """Write the manifest of a placed adapter; a manifest that is there already is never changed, but returned.

    Args:
        placed: from `place`.
        task: the task.
        job_id: the training job.
        at: when it was registered.
        method: how it was trained.
        base_model: name of the base model.
        dataset: version of the dataset.
        dataset_sha256: SHA-256 of the dataset's whole content.
        parents: adapters that it follows: the stable one at the time of training.
        params: the recipe.
        metrics: of the training run.
        evaluation: held-out figures.
        rejected: why it must not be rolled out; None registers it, where model servers can load what it is.

    Returns:
        The `adapter.v1` event, ready to be published.

    Raises:
        TrainingError: the manifest cannot be written, or the one that is there cannot be read.
    """
    if (known := registered(placed)) is not None:
        return known
    file = placed.folder / MANIFEST
    rejected = rejected or unservable(params)
    adapter = Adapter.model_validate(
        {
            "id": derived_id(int(at.timestamp() * 1000), "adapter", job_id),
            "at": at,
            "task": task,
            "name": placed.name,
            "label": f"{base_model}-{dataset}-{at:%Y%m%d}",
            "status": "registered" if rejected is None else "rejected",
            "reason": rejected or "",
            "method": method,
            "base_model": base_model,
            "path": str(placed.folder.resolve()),
            "served_as": placed.served_as,
            "weights_sha256": placed.weights_sha256,
            "files": placed.files,
            "dataset": dataset,
            "dataset_sha256": dataset_sha256,
            "parents": parents,
            "job_id": job_id,
            "params": dict(params),
            "metrics": dict(metrics),
            "evaluation": dict(evaluation),
        }
    )
    raw = adapter.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode()
    try:
        write_whole(file, raw)
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}: the manifest cannot be written") from error
    return adapter


def registered(placed: Placed) -> Adapter | None:
    """The manifest of a placed adapter; None where it was not registered yet.

    Raises:
        TrainingError: there is one, but it is no `adapter.v1`.
    """
    return read(placed.folder) if (placed.folder / MANIFEST).is_file() else None


def manifests(store: Questions) -> list[Adapter]:
    """Every adapter's manifest in the order of registration, those of other machines too.

    Raises:
        StoreError: ClickHouse is away.
    """
    return [parse(Adapter, row["manifest"].encode()) for row in store.query("adapter_manifests")]


def read(folder: Path) -> Adapter:
    """Read the manifest of a registered adapter.

    Raises:
        TrainingError: there is none, or it is no `adapter.v1`.
    """
    file = folder / MANIFEST
    try:
        return parse(Adapter, file.read_bytes())
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}") from error
    except InvalidEvent as error:
        raise TrainingError(f"{file}: {error}") from error


def write_whole(file: Path, raw: bytes) -> None:
    """Write a file so that it appears whole or not at all, also after a crash."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    with scratch.open("wb") as out:
        out.write(raw)
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(file)


@contextmanager
def _locked(shelf: Path) -> Iterator[None]:
    """Numbers are given by one process at a time on a machine."""
    shelf.mkdir(parents=True, exist_ok=True)
    with (shelf / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""Preference datasets: versioned by their content, written once, never changed.

``home/datasets/<task>/<version>/`` holds ``train.jsonl``, ``holdout.jsonl`` and ``manifest.json``.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.rows import canonical, instant
from ratchet.trainers.rules import dataset as rules
from ratchet.trainers.rules.dataset import Row

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store

KIND = "preference"
SIDES = ("train", "holdout")


@dataclass(frozen=True, slots=True)
class Dataset:
    """One version of a task's training data; ``manifest`` says what it was made from."""

    task: str
    version: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole content, in hex; the version is its beginning."""
        return str(self.manifest["sha256"])

    def file(self, side: str) -> Path:
        """The JSONL file of one side, ``train`` or ``holdout``."""
        return self.folder / f"{side}.jsonl"

    def rows(self, side: str) -> list[Row]:
        """The rows of one side, checked against the manifest.

        Raises:
            DatasetError: the file is away, or is not what was built.
        """
        raw = _read(self.file(side))
        if hashlib.sha256(raw).hexdigest() != self.manifest["files"][side]["sha256"]:
            raise DatasetError(f"{self.file(side)}: changed since version {self.version} was built; build it again")
        return [orjson.loads(line) for line in raw.splitlines()]


def build(
    store: Store,
    home: Path,
    task: str,
    now: datetime,
    *,
    holdout: float | None = None,
    evaluation: frozenset[str] = frozenset(),
) -> Dataset:
    """Make a dataset version of everything that the table `pairs` has for a task.

    The same pairs give the same version, and an existing version is returned as it is.

    Args:
        store: ClickHouse, with the pairs derived.
        home: Ratchet's home.
        task: the task's name.
        now: when this is done, for the manifest.
        holdout: the share that was held out before pairing, for the manifest.
        evaluation: keys (`rules.question`) of the task's frozen evaluation prompts, kept out of training.

    Raises:
        DatasetError: there is no pair to train on, or the folder cannot be written.
    """
    found = store.query("pairs_of_task", task=task)
    dropped = Counter({row["reason"] or "unknown": int(row["n"]) for row in store.query("pairs_dropped", task=task)})
    candidates = [rules.decode(pair) for pair in found]
    dropped["not_chat_messages"] += sum(one is None for one in candidates)
    selected = rules.select((one for one in candidates if one is not None), evaluation)
    dropped.update(selected.dropped)
    reasons = {reason: n for reason, n in sorted(dropped.items()) if n}
    if not selected.train:
        raise DatasetError(f"task {task!r} has no pair to train on; left out, by reason: {reasons or 'nothing'}")
    sides = {"train": selected.train, "holdout": selected.holdout}
    raw = {side: rules.lines(one.row for one in chosen) for side, chosen in sides.items()}
    sha256 = rules.digest(task, KIND, raw["train"], raw["holdout"])
    folder = home / "datasets" / task / sha256[:12]
    if not (folder / "manifest.json").is_file():
        parent = latest(home, task)
        manifest = {
            "version": sha256[:12],
            "sha256": sha256,
            "task": task,
            "kind": KIND,
            "created_at": now.isoformat(),
            "parent": parent.version if parent else None,
            "sources": dict(sorted(Counter(one.source for chosen in sides.values() for one in chosen).items())),
            "built": {side: len(chosen) for side, chosen in sides.items()},
            "conversations": {side: len({one.conversation_id for one in chosen}) for side, chosen in sides.items()},
            "dropped": reasons,
            # Pairs on which people disagreed: the majority decided, or nobody did and the pair is out.
            "conflicts": {
                "outvoted": sum(one.row["confidence"] < 1 for chosen in sides.values() for one in chosen),
                "undecided": reasons.get("tie", 0),
                "contradicted": reasons.get("contradiction", 0),
            },
            "filters": {"split_by": "conversation", "holdout": holdout, "evaluation_prompts": len(evaluation)},
            "files": {
                side: {
                    "rows": len(sides[side]),
                    "bytes": len(raw[side]),
                    "sha256": hashlib.sha256(raw[side]).hexdigest(),
                }
                for side in SIDES
            },
        }
        _write(folder, raw, manifest)
    built = load(folder)
    store.insert_rows("datasets_log", [_log_row(built)])
    return built


def rework(store: Store, home: Path, parent: Dataset, now: datetime, change: Callable[[Row], Row], why: str) -> Dataset:
    """Make a version out of another one by changing each of its rows; the manifest names the parent and says why.

    Args:
        store: ClickHouse, which lists the version.
        home: Ratchet's home.
        parent: the version to start from.
        now: when this is done, for the manifest.
        change: gives the new row for an old one; both sides of the dataset are changed.
        why: for the manifest, e.g. ``"chosen and rejected exchanged"``.
    """
    raw = {side: b"".join(orjson.dumps(change(row)) + b"\n" for row in parent.rows(side)) for side in SIDES}
    sha256 = rules.digest(parent.task, KIND, raw["train"], raw["holdout"])
    folder = home / "datasets" / parent.task / sha256[:12]
    if not (folder / "manifest.json").is_file():
        files = {
            side: parent.manifest["files"][side]
            | {"bytes": len(raw[side]), "sha256": hashlib.sha256(raw[side]).hexdigest()}
            for side in SIDES
        }
        changed = {"version": sha256[:12], "sha256": sha256, "parent": parent.version, "change": why, "files": files}
        _write(folder, raw, parent.manifest | changed | {"created_at": now.isoformat()})
    made = load(folder)
    store.insert_rows("datasets_log", [_log_row(made)])
    return made


def _log_row(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    return {
        "version": dataset.version,
        "task": dataset.task,
        "at": instant(datetime.fromisoformat(manifest["created_at"])),
        "kind": manifest["kind"],
        "path": str(dataset.folder.resolve()),
        "sha256": dataset.sha256,
        "n_train": manifest["built"]["train"],
        "n_holdout": manifest["built"]["holdout"],
        "parent": manifest["parent"] or "",
        "manifest": canonical(manifest),
    }


def _write(folder: Path, raw: dict[str, bytes], manifest: dict[str, Any]) -> None:
    """Write a version beside its place and rename it, so that it appears whole or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    except OSError as error:
        raise DatasetError(f"{folder.parent}: {error.strerror}: the dataset cannot be written") from error
    try:
        for side, content in raw.items():
            (scratch / f"{side}.jsonl").write_bytes(content)
        (scratch / "manifest.json").write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            # Another process built the same version in the meantime: its content is ours.
            if not (folder / "manifest.json").is_file():
                raise
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}: the dataset cannot be written") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load(folder: Path) -> Dataset:
    """Open the version in a folder.

    Raises:
        DatasetError: there is none, or its manifest cannot be read.
    """
    try:
        manifest = orjson.loads(_read(folder / "manifest.json"))
        return Dataset(manifest["task"], manifest["version"], folder, manifest)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / 'manifest.json'}: no dataset manifest ({error})") from None


def versions(home: Path, task: str | None = None) -> list[Dataset]:
    """Every dataset version on this machine, oldest first."""
    found = [load(path.parent) for path in (home / "datasets").glob(f"{task or '*'}/[0-9a-f]*/manifest.json")]
    return sorted(found, key=lambda one: (one.manifest["created_at"], one.version))


def relist(store: Store, home: Path) -> int:
    """List every version on this machine in ClickHouse again; returns how many there are.

    Raises:
        DatasetError: a manifest cannot be read.
        StoreError: ClickHouse is away.
    """
    return store.insert_rows("datasets_log", [_log_row(one) for one in versions(home)])


def latest(home: Path, task: str) -> Dataset | None:
    """The version of a task that was built last, or None."""
    return next(reversed(versions(home, task)), None)


def find(home: Path, version: str) -> Dataset:
    """Open a version by its name, or by the beginning of it.

    Raises:
        DatasetError: no version begins so, or several do.
    """
    found = [one for one in versions(home) if version and one.version.startswith(version)]
    if len(found) != 1:
        known = ", ".join(one.version for one in versions(home)) or "none"
        raise DatasetError(f"dataset version {version!r} names {len(found)} versions; known: {known}")
    return found[0]


def evaluation_questions(file: Path) -> frozenset[str]:
    """The keys (`rules.question`) of a frozen evaluation file's prompts.

    Raises:
        DatasetError: names the file, the line and the reason.
    """
    return frozenset(rules.question(row["messages"]) for row in read_evaluation(file))


def read_evaluation(file: Path) -> list[dict[str, Any]]:
    """Read a frozen evaluation file: JSONL rows ``{"id", "messages", "expect"?}``.

    Raises:
        DatasetError: names the file, the line and the reason.
    """
    rows = []
    for number, line in enumerate(_read(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DatasetError(f"{file}: line {number}: not JSON: {error}") from None
        messages = row.get("messages") if isinstance(row, dict) else None
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise DatasetError(f"{file}: line {number}: no 'messages'; allowed: a list of chat messages")
        rows.append(row)
    if not rows:
        raise DatasetError(f"{file}: no evaluation prompt in it")
    return rows


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None

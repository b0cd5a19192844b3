"""Datasets: versioned by their content, written once, never changed.

``home/datasets/<task>/<version>/`` holds ``train.jsonl``, ``holdout.jsonl`` and ``manifest.json``. A deletion
request takes the rows of a version away and leaves its manifest, so that lineage still names it (`erase`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.rows import canonical, instant
from ratchet.trainers.rules import dataset as rules
from ratchet.trainers.rules.dataset import Kind, Row

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store

SIDES = ("train", "holdout")
Sides = Mapping[str, Sequence[Row]]
"""The rows of ``train`` and ``holdout``."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One version of a task's training data; ``manifest`` says what it was made from."""

    task: str
    version: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def kind(self) -> Kind:
        """What its rows are."""
        kind: Kind = self.manifest["kind"]
        return kind

    @property
    def sha256(self) -> str:
        """SHA-256 of the whole content, in hex; the version is its beginning."""
        return str(self.manifest["sha256"])

    @property
    def erased(self) -> bool:
        """Whether a deletion request took its rows."""
        return "erased" in self.manifest

    def file(self, side: str) -> Path:
        """The JSONL file of one side, ``train`` or ``holdout``."""
        return self.folder / f"{side}.jsonl"

    def rows(self, side: str) -> list[Row]:
        """The rows of one side, checked against the manifest.

        Raises:
            DatasetError: the file is away, or is not what was built.
        """
        if self.erased:
            gone = self.manifest["erased"]
            rest = f"version {gone['replaced_by']} has the rest" if gone["replaced_by"] else "nothing was left"
            raise DatasetError(f"dataset {self.version} was erased at {gone['at']}: {gone['reason']}; {rest}")
        raw = read_bytes(self.file(side))
        if hashlib.sha256(raw).hexdigest() != self.manifest["files"][side]["sha256"]:
            raise DatasetError(f"{self.file(side)}: changed since version {self.version} was built; build it again")
        return [orjson.loads(line) for line in raw.splitlines()]


def make(
    store: Store, home: Path, task: str, kind: Kind, sides: Sides, now: datetime, facts: Mapping[str, Any]
) -> Dataset:
    """Write a version and list it in ClickHouse; rows that are a version already give that one as it is.

    Args:
        store: ClickHouse.
        home: Ratchet's home.
        task: the task's name.
        kind: of the rows.
        sides: both sides, in order.
        now: when this is done, for the manifest.
        facts: more for the manifest (sources of what was left out, filters, parent, …).

    Raises:
        DatasetError: the folder cannot be written, or these very rows were erased by a deletion request.
    """
    raw = {side: rules.lines(sides[side]) for side in SIDES}
    sha256 = rules.digest(task, kind, raw["train"], raw["holdout"])
    folder = home / "datasets" / task / sha256[:12]
    if not (folder / "manifest.json").is_file():
        rows = [row for side in SIDES for row in sides[side]]
        manifest = {
            "version": sha256[:12],
            "sha256": sha256,
            "task": task,
            "kind": kind,
            "created_at": now.isoformat(),
            "parent": None,
            **facts,
            "sources": dict(sorted(Counter(str(row.get("source", "")) for row in rows).items())),
            "built": {side: len(sides[side]) for side in SIDES},
            "conversations": {side: len({row.get("conversation_id") for row in sides[side]}) for side in SIDES},
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
    made = load(folder)
    if made.erased:
        raise DatasetError(
            f"dataset {made.version} was erased: {made.manifest['erased']['reason']}; it is not made again"
        )
    store.insert_rows("datasets_log", [_log_row(made)])
    return made


def rework(
    store: Store, home: Path, parent: Dataset, now: datetime, change: Callable[[Row], Row | None], why: str
) -> Dataset:
    """Make a version out of another one by changing each of its rows; the manifest names the parent and says why.

    Args:
        store: ClickHouse, which lists the version.
        home: Ratchet's home.
        parent: the version to start from.
        now: when this is done, for the manifest.
        change: gives the new row for an old one, or None to leave it out; both sides of the dataset are changed.
        why: for the manifest, e.g. ``"chosen and rejected exchanged"``.
    """
    sides = {side: [new for row in parent.rows(side) if (new := change(row)) is not None] for side in SIDES}
    facts = {"dropped", "conflicts", "filters", "steps"} & parent.manifest.keys()
    kept = {name: parent.manifest[name] for name in sorted(facts)}
    return make(store, home, parent.task, parent.kind, sides, now, kept | {"parent": parent.version, "change": why})


def erase(store: Store, dataset: Dataset, now: datetime, reason: str, replaced_by: str | None) -> Dataset:
    """Take a version's rows away and say so in its manifest; doing it again changes nothing.

    Raises:
        DatasetError: the folder cannot be written.
    """
    if not dataset.erased:
        gone = {"at": now.isoformat(), "reason": reason, "replaced_by": replaced_by}
        manifest = dataset.manifest | {"erased": gone}
        try:
            # the word first: a version without files whose manifest does not say why would look damaged
            scratch = dataset.folder / ".manifest.json"
            scratch.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
            os.replace(scratch, dataset.folder / "manifest.json")
        except OSError as error:
            raise DatasetError(f"{dataset.folder}: {error.strerror}: the version cannot be erased") from error
        dataset = load(dataset.folder)
    try:
        for side in SIDES:
            dataset.file(side).unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(f"{error.filename}: {error.strerror}: the version cannot be erased") from error
    store.insert_rows("datasets_log", [_log_row(dataset)])
    return dataset


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
        manifest = orjson.loads(read_bytes(folder / "manifest.json"))
        return Dataset(manifest["task"], manifest["version"], folder, manifest)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder / 'manifest.json'}: no dataset manifest ({error})") from None


def versions(home: Path, task: str | None = None) -> list[Dataset]:
    """Every dataset version on this machine, oldest first; erased ones too."""
    found = [load(path.parent) for path in (home / "datasets").glob(f"{task or '*'}/[0-9a-f]*/manifest.json")]
    return sorted(found, key=lambda one: (one.manifest["created_at"], one.version))


def relist(store: Store, home: Path) -> int:
    """List every version on this machine in ClickHouse again; returns how many there are.

    Raises:
        DatasetError: a manifest cannot be read.
        StoreError: ClickHouse is away.
    """
    return store.insert_rows("datasets_log", [_log_row(one) for one in versions(home)])


def latest(home: Path, task: str, kind: Kind | None = None) -> Dataset | None:
    """The version of a task (of a kind) that was built last and still has its rows, or None."""
    found = [one for one in versions(home, task) if not one.erased and kind in (None, one.kind)]
    return found[-1] if found else None


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


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None

"""A user's deletion request among the trainers' files: dataset versions, copies of their rows, adapters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Adapter
from ratchet.trainers.adapters.lineage import rewarded_by
from ratchet.trainers.dataset import SIDES, Dataset, erase, read_bytes, rework, versions
from ratchet.trainers.rules.dataset import Row, made_of

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store


@dataclass(frozen=True, slots=True)
class Mine:
    """Which rows are a user's: by the events that they were made of, or by the user that an imported file named."""

    event_ids: frozenset[str]
    who: str

    def __call__(self, row: Row) -> bool:
        """Whether a row holds the user's data."""
        return row.get("who") == self.who or not self.event_ids.isdisjoint(made_of(row))


@dataclass(frozen=True, slots=True)
class Touched:
    """A dataset version with ``n`` rows of the user."""

    dataset: Dataset
    n: int


def touched(home: Path, mine: Mine) -> list[Touched]:
    """The versions on this machine that hold a user's rows, oldest first.

    Raises:
        DatasetError: a version cannot be read.
    """
    found = []
    for one in versions(home):
        if not one.erased and (n := sum(mine(row) for side in SIDES for row in one.rows(side))):
            found.append(Touched(one, n))
    return found


def reason(who: str) -> str:
    """What manifests say about a request; two requests of one user say the same."""
    return f"a user's deletion request ({who[:12]})"


def erased(home: Path, who: str) -> list[str]:
    """The versions that requests of a user have taken the rows of."""
    return [one.version for one in versions(home) if one.erased and one.manifest["erased"]["reason"] == reason(who)]


def renew(store: Store, home: Path, old: Dataset, mine: Mine, now: datetime) -> Dataset | None:
    """Make a child version without a user's rows and erase the old one; None where no row to train on is left.

    Raises:
        DatasetError: a folder cannot be written.
        StoreError: ClickHouse is away; doing it again goes on.
    """
    new = None
    if any(not mine(row) for row in old.rows("train")):
        new = rework(
            store, home, old, now, lambda row: None if mine(row) else row, f"{reason(mine.who)}: rows left out"
        )
    erase(store, old, now, reason(mine.who), new.version if new else None)
    return new


def copies(home: Path, mine: Mine) -> list[Path]:
    """Files beside the versions that hold a user's rows: of jobs that trained on a part, of an LLM's proposals."""
    files = [*sorted((home / "jobs").glob("*/train.jsonl")), *sorted((home / "augmented").glob("*/*.jsonl"))]
    return [file for file in files if any(mine(_row(line)) for line in read_bytes(file).splitlines())]


def _row(line: bytes) -> Row:
    value: Row = orjson.loads(line)
    row: Row = value.get("row", value)  # a proposal has its row within
    return row


def remove(files: Iterable[Path]) -> None:
    """Delete files.

    Raises:
        DatasetError: one cannot be deleted.
    """
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise DatasetError(f"{file}: {error.strerror}: it cannot be deleted") from error


def trained_on(store: Store, versions_: Iterable[str]) -> list[Adapter]:
    """The adapters that were trained on one of these dataset versions, or rewarded by one that was.

    In the order of their registration.
    """
    wanted = set(versions_)
    adapters = [Adapter.model_validate_json(row["manifest"]) for row in store.query("adapter_manifests")]
    trained = {one.name for one in adapters if one.dataset in wanted}
    rewarded = {one.name for one in rewarded_by(trained, adapters)}
    return [one for one in adapters if one.name in trained | rewarded]

"""Proposals of new training rows: written by an LLM, kept apart until a person reviewed them.

``home/augmented/<task>/<batch>.jsonl`` holds a batch, a proposal a line with its ``status``. Nothing of it is in any
dataset version before it is accepted and mixed in.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from ratchet.schemas.errors import DatasetError, ModelError
from ratchet.trainers.dataset import Dataset, read_bytes
from ratchet.trainers.registry import write_whole
from ratchet.trainers.rules import augmenting as rules
from ratchet.trainers.rules.augmenting import Way
from ratchet.trainers.rules.dataset import Row, id_of

if TYPE_CHECKING:
    from ratchet.infra.judge import JudgeClient

Status = Literal["proposed", "accepted", "rejected"]
TEMPERATURE = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Proposals made at one time from one version, by row id, in the order in which they are shown."""

    name: str
    file: Path
    task: str
    kind: str
    proposals: dict[str, dict[str, Any]]

    def rows(self, status: Status) -> list[Row]:
        """The rows of a status."""
        return [one["row"] for one in self.proposals.values() if one["status"] == status]


async def propose(
    home: Path,
    version: Dataset,
    way: Way,
    count: int,
    client: JudgeClient,
    now: datetime,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[Batch, list[str]]:
    """Have an LLM write new rows after those of a version's training side.

    Args:
        home: Ratchet's home.
        version: whose rows are started from; never its held-out side.
        way: how.
        count: rows wanted; rows are taken by the hash of their ids, each once before any twice.
        client: of the LLM, with its limits and budget.
        now: when this is done.
        tell: takes how many replies have come, after each.

    Returns:
        The batch, and why replies came to nothing.

    Raises:
        DatasetError: a kto version, or the batch cannot be written.
        ModelError: the LLM is away, or its budget is spent, before anything was written.
    """
    real = [row for row in version.rows("train") if not row.get("synthetic")]
    ordered = sorted(real, key=lambda row: hashlib.sha256(id_of(row).encode()).digest())
    made: dict[str, dict[str, Any]] = {}
    failed: list[str] = []
    told = 0

    async def one(row: Row) -> None:
        nonlocal told
        try:
            system, user = rules.ask(row, way, version.kind)
            said = await client.sample(system, user, rules.schema(way, version.kind), 1, TEMPERATURE)
            new = rules.read(said.texts[0], row, way, version.kind, client.model)
            made[id_of(new)] = {"status": "proposed", "at": now.isoformat(), "row": new}
        except ValueError as error:
            failed.append(f"{id_of(row)}: {error}")
        told += 1
        tell(told)

    if version.kind == "kto":
        raise DatasetError(f"dataset {version.version}: kto labels are people's alone; allowed: preference and sft")
    wanted = [ordered[number % len(ordered)] for number in range(count)] if ordered else []
    for start in range(0, len(wanted), client.concurrency):
        try:
            await asyncio.gather(*(one(row) for row in wanted[start : start + client.concurrency]))
        except ModelError as error:
            if not made:
                raise
            failed.append(str(error))
            break
    if not made:
        raise DatasetError(f"no row came of {len(wanted)} replies: {'; '.join(failed[:3]) or 'nothing to start from'}")
    name = hashlib.sha256("".join(sorted(made)).encode()).hexdigest()[:12]
    file = home / "augmented" / version.task / f"{name}.jsonl"
    batch = Batch(name, file, version.task, version.kind, made)
    _write(batch)
    return batch, failed


def find_batch(home: Path, name: str) -> Batch:
    """Open a batch by its name, or the beginning of it.

    Raises:
        DatasetError: none begins so, or several do, or it cannot be read.
    """
    files = sorted((home / "augmented").glob("*/*.jsonl"))
    found = [file for file in files if name and file.stem.startswith(name)]
    if len(found) != 1:
        known = ", ".join(file.stem for file in files) or "none"
        raise DatasetError(f"batch {name!r} names {len(found)} batches; known: {known}")
    try:
        proposals = [orjson.loads(line) for line in read_bytes(found[0]).splitlines()]
        by_id = {id_of(one["row"]): one for one in proposals}
        kind = "preference" if all("chosen" in one["row"] for one in proposals) else "sft"
        return Batch(found[0].stem, found[0], found[0].parent.name, kind, by_id)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DatasetError(f"{found[0]}: no batch of proposals ({error!r})") from None


def review(batch: Batch, verdicts: Mapping[str, Status], who: str, now: datetime) -> Batch:
    """Write down what a person says of proposals; the last word on each counts.

    Raises:
        DatasetError: a row that is not in the batch, or it cannot be written.
    """
    if unknown := sorted(verdicts.keys() - batch.proposals.keys()):
        raise DatasetError(f"batch {batch.name}: no proposal {unknown[0]!r}; `ratchet dataset review` shows them")
    for id, status in verdicts.items():
        batch.proposals[id] |= {"status": status, "by": who, "reviewed_at": now.isoformat()}
    _write(batch)
    return batch


def _write(batch: Batch) -> None:
    try:
        batch.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(batch.file, b"".join(orjson.dumps(one) + b"\n" for one in batch.proposals.values()))
    except OSError as error:
        raise DatasetError(f"{batch.file}: {error.strerror}: the batch cannot be written") from error

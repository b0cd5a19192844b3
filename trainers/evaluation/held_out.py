"""A task's frozen evaluation prompts: asked of every candidate, so no training set may touch them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ratchet.schemas.errors import DatasetError
from ratchet.trainers.dataset import Dataset, read_bytes
from ratchet.trainers.rules.dataset import asked, question


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The prompts' texts by `question` key, and the SHA-256 of their files' bytes; empty where a task has none."""

    prompts: dict[str, str] = field(default_factory=dict)
    sha256: str = ""

    @classmethod
    def of(cls, *files: Path) -> EvaluationSet:
        """Read a task's files, in this order.

        Raises:
            DatasetError: names the file, the line and the reason.
        """
        if not files:
            return cls()
        rows = [row for file in files for row in read_evaluation(file)]
        prompts = {question(row["messages"]): asked(row["messages"]) for row in rows}
        return cls(prompts, hashlib.sha256(b"".join(map(read_bytes, files))).hexdigest())

    def refuse_touched(self, dataset: Dataset) -> None:
        """Refuse to train on a version that was built against other evaluation prompts and holds one of today's.

        Raises:
            DatasetError: says how many.
        """
        if not self.prompts or dataset.manifest["filters"].get("evaluation_sha256") == self.sha256:
            return
        touched = sum(question(row["prompt"]) in self.prompts for row in dataset.rows("train"))
        if touched:
            raise DatasetError(
                f"dataset {dataset.version} trains on {touched} prompts of the task's frozen evaluation, which changed"
                " since it was built: build it again"
            )


def read_evaluation(file: Path) -> list[dict[str, Any]]:
    """Read a frozen evaluation file: JSONL rows ``{"id", "messages", "expect"?}``.

    Raises:
        DatasetError: names the file, the line and the reason.
    """
    rows = []
    for number, line in enumerate(read_bytes(file).splitlines(), start=1):
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

"""What a training run is told and what it tells: the job file, the rows, the places of its results.

The worker writes the job file, ``python -m ratchet.trainers.training.run --job FILE`` reads it
in a process of its own. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.schemas.checks import Check
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Closed
from ratchet.schemas.explain import explain
from ratchet.schemas.training_policy import ONLINE, Recipe
from ratchet.trainers.rules.dataset import kind_for

ADAPTER_DIR = "adapter"
"""What was trained, as safetensors: PEFT's adapter, or the whole model."""
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"

EXIT_TRAINING = 3
"""Exit status of a run that stopped for a reason of the training itself; result.json says which."""


class Message(Closed):
    """One chat message."""

    role: str
    content: str


class Row(BaseModel):
    """What every line of a dataset has; fields that only lineage needs are let through unread."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: Annotated[list[Message], Field(min_length=1)]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0


class PreferenceRow(Row):
    """One line of a preference dataset: what was asked, the better answer, the worse one."""

    chosen: Annotated[list[Message], Field(min_length=1, max_length=1)]
    rejected: Annotated[list[Message], Field(min_length=1, max_length=1)]


class ExampleRow(Row):
    """One line of a dataset for sft, or (with a label: whether the answer is wanted) for kto."""

    completion: Annotated[list[Message], Field(min_length=1, max_length=1)]
    label: bool = True


class LabelledRow(ExampleRow):
    """One line of a dataset for kto."""

    label: bool


class RewardSource(Closed):
    """What rewards the answers of grpo and rloo: a reward model, a check of the task, or both."""

    task: str
    adapter: Path | None = None
    check: Check | None = None
    config_dir: Path = Path()
    """The folder of ``ratchet.toml``; the check's files and functions are beside it."""


class TrainingJob(Closed):
    """The job file of one run; ``output`` gets ``adapter/``, ``result.json`` and ``progress.jsonl``."""

    base_model: Path
    dataset: Path
    output: Path
    holdout: Path | None = None
    recipe: Recipe = Field(default_factory=Recipe)
    reward: RewardSource | None = None


def read_rows(path: Path, method: str) -> list[Any]:
    """Read a dataset, one JSON object a line; empty lines are skipped.

    Args:
        path: the file.
        method: what is learned from it, which says what a row is.

    Returns:
        `PreferenceRow`s, for sft `ExampleRow`s, for kto `LabelledRow`s; for grpo and rloo, which take the prompts of
        rows of whatever kind, `Row`s.

    Raises:
        DatasetError: the file cannot be read, or a line is no row: names file, line and reason.
    """
    of: dict[str, type[Row]] = {"preference": PreferenceRow, "sft": ExampleRow, "kto": LabelledRow}
    return list(_rows(path, Row if method in ONLINE else of[kind_for(method)]))


def _rows(path: Path, of: type[Row]) -> Iterator[Row]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield of.model_validate_json(line)
                except ValidationError as error:
                    raise DatasetError(f"{path}, line {number}: {explain(error)}") from None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error

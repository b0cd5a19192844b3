"""What a DPO run is told and what it tells: the job file, the rows, the result's place.

The worker writes the job file, ``python -m ratchet.trainers.train_dpo --job FILE`` reads it
in a process of its own. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.explain import explain

ADAPTER_DIR = "adapter"
RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.jsonl"

EXIT_TRAINING = 3
"""Exit status of a run that stopped for a reason of the training itself; result.json says which."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Closed(BaseModel):
    """A frozen model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Message(Closed):
    """One chat message."""

    role: str
    content: str


class PreferenceRow(BaseModel):
    """One line of a preference dataset: what was asked, the better answer, the worse one.

    Fields that only lineage needs (confidence, event ids) are let through unread.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: Annotated[list[Message], Field(min_length=1)]
    chosen: Annotated[list[Message], Field(min_length=1, max_length=1)]
    rejected: Annotated[list[Message], Field(min_length=1, max_length=1)]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    pair_id: str = ""


class DpoParams(Closed):
    """How to train; the defaults suit short answers and a model of about 100M parameters on a CPU."""

    method: Literal["dpo"] = "dpo"
    loss_type: list[Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "sigmoid_norm", "sft"]] = Field(
        default=["sigmoid", "sft"], min_length=1
    )
    loss_weights: list[Positive] = Field(default=[1.0, 1.0], min_length=1)
    beta: Positive = 0.1
    learning_rate: Positive = 1e-3
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    epochs: Positive = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 4
    lora_r: Annotated[int, Field(ge=1, le=512)] = 8
    lora_alpha: Annotated[int, Field(ge=1)] = 16
    lora_targets: str | list[str] = "all-linear"
    max_length: Annotated[int, Field(ge=16)] = 256
    seed: int = 0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """auto: bfloat16 where the hardware multiplies it faster (a GPU, a CPU with AMX), else float32."""
    threads: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_weight_a_loss(self) -> DpoParams:
        if len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"{len(self.loss_weights)} loss weights for {len(self.loss_type)} losses")
        return self


class DpoJob(Closed):
    """The job file of one run; ``output`` gets ``adapter/``, ``result.json`` and ``progress.jsonl``."""

    base_model: Path
    dataset: Path
    output: Path
    holdout: Path | None = None
    params: DpoParams = Field(default_factory=DpoParams)


def read_rows(path: Path) -> list[PreferenceRow]:
    """Read a preference dataset, one JSON object a line; empty lines are skipped.

    Raises:
        DatasetError: the file cannot be read, or a line is no row: names file, line and reason.
    """
    return list(_rows(path))


def _rows(path: Path) -> Iterator[PreferenceRow]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield PreferenceRow.model_validate_json(line)
                except ValidationError as error:
                    raise DatasetError(f"{path}, line {number}: {explain(error)}") from None
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from error

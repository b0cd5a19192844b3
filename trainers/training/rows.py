"""The rows of a run as token ids: those that fit, drawn by their weights, and how many steps they make."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.schemas.errors import DatasetError, TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.rules.packing import pack
from ratchet.trainers.rules.resampling import systematic
from ratchet.trainers.training.encoding import EncodedPair, EncodedPrompt, Packed
from ratchet.trainers.training.job import TrainingJob, read_rows
from ratchet.trainers.training.methods import encoder
from ratchet.trainers.training.methods import steps as count_steps


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run goes through.

    ``drawn`` are encoded rows in the order in which they are seen, some twice and some not at all by their weights;
    ``n`` rows fitted, ``too_long`` did not.
    """

    drawn: list[Any]
    holdout: list[Any]
    n: int
    too_long: int
    steps: int

    def tokens(self, recipe: Recipe) -> int:
        """Tokens of rows that go through the model in all steps, without padding."""
        each = sum(lengths(self.drawn, recipe)) / len(self.drawn)
        processes = recipe.distributed.processes if recipe.distributed else 1
        return round(each * self.steps * recipe.batch_size * recipe.gradient_accumulation * processes)


def read(job: TrainingJob) -> tuple[list[Any], list[Any]]:
    """Read a job's rows to train on and its held-out rows.

    Raises:
        DatasetError: a dataset cannot be read.
        TrainingError: there are no rows to train on.
    """
    rows = read_rows(job.dataset, job.recipe.method)
    if not rows:
        raise TrainingError(f"{job.dataset} has no rows: there is nothing to learn from")
    return rows, read_rows(job.holdout, job.recipe.method) if job.holdout else []


def prepare(job: TrainingJob, rows: Sequence[Any], held_out: Sequence[Any], tokenizer: Any) -> Prepared:
    """Encode a job's rows as its method needs them.

    Raises:
        DatasetError: the dataset's weights cannot be drawn by.
        TrainingError: no row fits.
    """
    recipe = job.recipe
    encode = encoder(recipe)
    encoded, kept = encode(tokenizer, rows, recipe.max_length)
    holdout, _ = encode(tokenizer, held_out, recipe.max_length)
    if not encoded:
        raise TrainingError(f"no row fits into max_length={recipe.max_length} tokens: there is nothing to learn from")
    try:
        drawn = [encoded[index] for index in systematic([row.weight for row in kept])]
    except ValueError as error:
        raise DatasetError(f"{job.dataset}: {error}") from error
    if recipe.packing:
        drawn = [
            Packed(tuple(drawn[place] for place in group)) for group in pack(lengths(drawn, recipe), recipe.max_length)
        ]
    if recipe.method == "kto":
        random.Random(recipe.seed).shuffle(drawn)  # noqa: S311 - TRL goes through them in their order
    return Prepared(drawn, holdout, len(encoded), len(rows) - len(encoded), count_steps(recipe, len(drawn)))


def lengths(rows: Sequence[Any], recipe: Recipe) -> list[int]:
    """Tokens of each encoded row, prompt and (longer) answer; an answer that is still to be drawn at its most."""
    return [
        sum(lengths(row.rows, recipe)) if isinstance(row, Packed) else len(row.prompt_ids) + _answer(row, recipe)
        for row in rows
    ]


def _answer(row: Any, recipe: Recipe) -> int:
    if isinstance(row, EncodedPair):
        return max(len(row.chosen_ids), len(row.rejected_ids))
    return recipe.max_completion_length if isinstance(row, EncodedPrompt) else len(row.completion_ids)

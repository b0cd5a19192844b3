"""What ends a run before its last step: held-out rows that get no better, collapsed rewards, no memory left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.rules import collapse
from ratchet.trainers.rules.stopping import Standing, evaluation_steps, standing
from ratchet.trainers.training.held_out import during
from ratchet.trainers.training.telling import Line

FIGURES = {"loss": "eval_loss", "preference_accuracy": "eval_preference_accuracy"}
"""What is watched, and what a progress line calls it."""


def stands(recipe: Recipe, lines: Sequence[Line]) -> tuple[int, Standing] | None:
    """The best step of a run so far, and how it stands; None where nothing is watched, or was not yet measured."""
    if recipe.early_stopping is None:
        return None
    name = FIGURES[recipe.early_stopping]
    measured = [line for line in lines if name in line]
    lower = recipe.early_stopping == "loss"
    found = standing([line[name] for line in measured], lower_is_better=lower, min_delta=recipe.min_delta)
    return None if found is None else (int(measured[found.best]["step"]), found)


def best_step(recipe: Recipe, lines: Sequence[Line]) -> int | None:
    """The step whose weights are the best so far; None where nothing is watched."""
    found = stands(recipe, lines)
    return None if found is None else found[0]


def callback(
    trainer: Any,
    recipe: Recipe,
    steps: int,
    rows: Sequence[Any],
    chosen_tokens: float,
    history: list[Line],
    measured: Line,
) -> Any:
    """A callback that measures held-out rows, and ends a run where it gets no better or its rewards have collapsed.

    What it decides by is in the progress lines alone, so a run that goes on from a checkpoint decides alike.

    Args:
        trainer: the run's.
        recipe: says when.
        steps: of the whole run.
        rows: held out; may be empty.
        chosen_tokens: mean length of the better answers that are trained on.
        history: the progress lines so far, the one of the step included when its log is told.
        measured: gets the figures for the step's line.
    """
    from transformers import TrainerCallback

    when = evaluation_steps(steps, recipe.measured) if rows else frozenset()

    class Stopping(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_log |= state.global_step == steps
            before = stands(recipe, history)
            if before is not None and before[1].since >= recipe.patience:
                control.should_training_stop = True  # killed after it was decided, and gone on from there
                return
            if state.global_step not in when:
                return
            measured.update(during(trainer, recipe, rows))
            control.should_log = True
            found = stands(recipe, [*history, measured | {"step": state.global_step}])
            if found is not None:
                # the checkpoint is what is kept of the best step, and what a killed run goes on from
                control.should_save |= found[1].since == 0
                control.should_training_stop |= found[1].since >= recipe.patience

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if recipe.method not in ("dpo", "kto") or not logs or "loss" not in logs:
                return
            why = collapse.displaced(
                history,
                beta=recipe.beta,
                tokens=chosen_tokens,
                most=recipe.collapse_nats,
                logs=recipe.collapse_logs,
            ) or collapse.still(history, logs=recipe.still_logs)
            if why:
                raise TrainingError(f"rewards collapsed at step {state.global_step} of {steps}: {why}")

    return Stopping()


@contextmanager
def out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Turn a failed allocation of a GPU or of the machine into the settings to change.

    Raises:
        TrainingError: memory ran out within.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(_smaller(recipe, error)) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise TrainingError(_smaller(recipe, error)) from error


def _smaller(recipe: Recipe, error: BaseException) -> str:
    ways = []
    if recipe.batch_size > 1:
        ways.append(f"a smaller batch_size ({recipe.batch_size}) with more gradient_accumulation")
    ways.append(f"a smaller max_length ({recipe.max_length})")
    if not recipe.gradient_checkpointing and recipe.adapter_type != "prefix":
        ways.append("gradient_checkpointing = true")
    first = (str(error).splitlines() or ["no more memory"])[0]
    now = f"gradient_accumulation is {recipe.gradient_accumulation}"
    return f"out of memory ({now}): try {', '.join(ways)}. It said: {first}"

"""Train one adapter or one whole model, in a process of its own.

Run: ``python -m ratchet.trainers.training.run --job JOB.json`` (a `TrainingJob`). It leaves in the
job's output folder:

- ``adapter/``: the PEFT adapter as safetensors, as vLLM loads LoRA, or the whole model with its tokenizer;
- ``progress.jsonl``: one line a logging step, for whoever watches;
- ``result.json``: metrics and the hash of the weights, or ``{"error": …}``.

Exit status: 0 done; 2 a wrong job file; 3 the training stopped itself (result.json says why).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.schemas.errors import RatchetError, TrainingError
from ratchet.schemas.explain import explain
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.planning import refuse_what_cannot_fit
from ratchet.trainers.training import checkpoints, stopping, telling
from ratchet.trainers.training.grpo import opened, refuse_without_difference
from ratchet.trainers.training.held_out import held_out
from ratchet.trainers.training.job import (
    ADAPTER_DIR,
    EXIT_TRAINING,
    PROGRESS_FILE,
    RESULT_FILE,
    TrainingJob,
)
from ratchet.trainers.training.launching import of_this_process
from ratchet.trainers.training.methods import trainer as make_trainer
from ratchet.trainers.training.methods import wanted_tokens
from ratchet.trainers.training.model import base_alone, dtype, load, load_tokenizer, save
from ratchet.trainers.training.rows import prepare, read


def main(argv: Sequence[str] | None = None) -> int:
    """Read the job file, train, write the result; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ratchet.trainers.training.run")
    parser.add_argument("--job", type=Path, required=True, help="the job file, JSON")
    path: Path = parser.parse_args(argv).job
    try:
        job = of_this_process(TrainingJob.model_validate_json(path.read_bytes()))
        job.output.mkdir(parents=True, exist_ok=True)
    except ValidationError as error:
        _say(f"{path}: {explain(error)}")
        return 2
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}")
        return 2
    try:
        result = train(job)
    except RatchetError as error:
        _write_json(job.output / RESULT_FILE, {"error": str(error)})
        _say(str(error))
        return EXIT_TRAINING
    _write_json(job.output / RESULT_FILE, result)
    checkpoints.keep(job.output, 0)
    return 0


def train(job: TrainingJob) -> dict[str, Any]:
    """Train what one job asks for.

    Returns:
        ``weights_sha256`` (of the one safetensors file), ``seconds``, ``n`` rows trained on, ``too_long`` rows left
        out, ``steps``, ``tokens`` in all of them, ``resumed_after`` (the step of the checkpoint that was gone on from,
        or 0), ``dtype``, ``metrics`` (loss first and last and, of methods with rewards, their accuracy and margin in
        the last steps) and, with held-out pairs, their preference accuracy ``holdout_before`` and ``holdout_after``,
        by the answer and (``…_per_token``) by the token, which does not favour short answers; with held-out rows of
        another kind or method what `held_out` says. With early stopping ``steps`` is how far it got, ``best_step`` the
        one whose weights are kept, and ``stopped_early`` 1 or 0.

    Raises:
        DatasetError: the dataset cannot be read.
        TrainingError: nothing to learn from, nothing held out to stop by, no room for it, a loss that is no longer a
            finite number, collapsed rewards, or no memory left.
    """
    started = time.monotonic()
    recipe = job.recipe
    learned, held = read(job)

    # Everything is on disk. Threads that wait shall sleep, for the model server shares these cores.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _keep_memory()
    with stopping.out_of_memory(recipe):
        return _trained(job, learned, held, started)


def _trained(job: TrainingJob, learned: list[Any], held: list[Any], started: float) -> dict[str, Any]:
    import torch
    from datasets import disable_progress_bars
    from transformers import PrinterCallback

    recipe = job.recipe
    disable_progress_bars()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)

    # 1. The rows as the token ids that serving would see, whether there is room for them, and the model.
    tokenizer = load_tokenizer(job.base_model, recipe)
    rows = prepare(job, learned, held, tokenizer)
    if recipe.early_stopping and not rows.holdout:
        raise TrainingError(
            f"early_stopping {recipe.early_stopping!r}: no held-out row fits; there is nothing to stop by"
        )
    refuse_what_cannot_fit(job, rows)
    model = load(job.base_model, recipe)

    # 2. TRL's trainer.
    steps = rows.steps
    made_of = checkpoints.fingerprint(job)
    file = job.output / PROGRESS_FILE
    told = list(telling.lines(file))
    resumed = checkpoints.newest(job.output, made_of, _say, lambda step: stopping.best_step(recipe, _until(told, step)))
    if resumed is not None:
        _say(f"going on after step {resumed.step} of {steps}, from {resumed.folder}")
        started -= resumed.seconds
    history = _until(told, resumed.step if resumed else 0)
    measured: telling.Line = {}
    callbacks = [
        telling.callback(file, steps, history, measured),
        checkpoints.callback(
            job.output,
            made_of,
            recipe.checkpoint_s,
            started,
            lambda step: stopping.best_step(recipe, _until(history, step)),
        ),
    ]
    arguments = _arguments(job.output, recipe, steps)
    with opened(job) as rewarded:
        trainer = make_trainer(recipe, model, tokenizer, rows.drawn, arguments, callbacks, rewarded, rows.holdout)
        trainer.remove_callback(PrinterCallback)
        wanted = wanted_tokens(rows.drawn)
        trainer.add_callback(stopping.callback(trainer, recipe, steps, rows.holdout, wanted, history, measured))

        # 3. Held-out figures before, training, held-out figures after.
        with base_alone(trainer.model):
            before = held_out(recipe, trainer.model, tokenizer, rows.holdout, "before", rewarded)
        training_started = time.monotonic()
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
        training_s = time.monotonic() - training_started
        refuse_without_difference(history)
        done = int(trainer.state.global_step)
        best = _to_the_best(trainer, recipe, job.output, made_of, history)
        after = held_out(recipe, trainer.model, tokenizer, rows.holdout, "after", rewarded)

    # 4. The adapter, written whole before its hash is taken.
    parts = recipe.distributed is not None and recipe.distributed.strategy == "fsdp"
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if parts else None
    sha256 = save(trainer.model, tokenizer, job.output / ADAPTER_DIR, state)
    metrics = {"loss_first": history[0]["loss"], "loss_last": telling.last(history, "loss")}
    rewards = [name for name in ("reward_accuracy", "reward_margin", "reward", "kl") if telling.has(history, name)]
    metrics |= {name: telling.last(history, name) for name in rewards}
    if best is not None:
        metrics |= {"best_step": float(best), "stopped_early": float(done < steps)}
    for figures in (before, after):
        metrics |= {name: value for name, value in figures.items() if isinstance(value, float)}
    return {
        "weights_sha256": sha256,
        "seconds": round(time.monotonic() - started, 2),
        "training_seconds": round(training_s, 2),
        "n": rows.n,
        "too_long": rows.too_long,
        "steps": done,
        "tokens": round(rows.tokens(recipe) * done / steps),
        "resumed_after": resumed.step if resumed else 0,
        "dtype": str(dtype(recipe)).removeprefix("torch."),
        "metrics": metrics,
        **{name: value for name, value in (before | after).items() if not isinstance(value, float)},
    }


def _until(lines: Sequence[telling.Line], step: int) -> list[telling.Line]:
    return [line for line in lines if line["step"] <= step]


def _to_the_best(trainer: Any, recipe: Recipe, output: Path, made_of: str, history: list[telling.Line]) -> int | None:
    """Put the weights of the best step into the model, where early stopping watched; gives that step.

    Raises:
        TrainingError: they are not those that were sealed.
    """
    best = stopping.best_step(recipe, history)
    if best is not None and best != trainer.state.global_step:
        folder = checkpoints.folder_of(output, best)
        if why := checkpoints.flaw(folder, made_of):
            raise TrainingError(f"the weights of the best step, {best}: {why}")
        trainer._load_from_checkpoint(str(folder))
    return best


def _arguments(output: Path, recipe: Recipe, steps: int) -> dict[str, Any]:
    import torch

    return {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "learning_rate": recipe.rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": math.ceil(steps * recipe.warmup_share),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": False,  # the weights are in their final dtype already
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": max(1, steps // 50),
        "logging_first_step": True,
        # A loss that is not a number must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # checkpoints.py says when
        "report_to": "none",
        "disable_tqdm": True,
    }


def _keep_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the kernel.

    Each step allocates and frees the same gigabytes; faulting them in page by page again took a
    quarter of the processor time (docs/experiments.md). Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: and the heap is never cut back
        mallopt(-2, 256 << 20)  # M_TOP_PAD, bytes: it grows in large pieces


def _say(text: str) -> None:
    """One line for the run's log."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a person reads it


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())

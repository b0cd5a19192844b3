"""Train one LoRA adapter by direct preference optimization, in a process of its own.

Run: ``python -m ratchet.trainers.train_dpo --job JOB.json`` (a `DpoJob`). It leaves in the
job's output folder:

- ``adapter/``: the PEFT adapter as safetensors, as vLLM loads it;
- ``progress.jsonl``: one line a logging step, for whoever watches;
- ``result.json``: metrics and the hash of the weights, or ``{"error": …}``.

Exit status: 0 done; 2 a wrong job file; 3 the training stopped itself (result.json says why).
Sources: Rafailov et al., "Direct Preference Optimization" (2023); the supervised term beside it
("sft") as in RPO and in Llama 3's recipe, which keeps the better answer from losing likelihood
together with the worse one. The loop and the losses are TRL's.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.schemas.errors import DatasetError, RatchetError, TrainingError
from ratchet.schemas.explain import explain
from ratchet.trainers.dpo_job import ADAPTER_DIR, EXIT_TRAINING, PROGRESS_FILE, RESULT_FILE, DpoJob, read_rows
from ratchet.trainers.encoding import encode_pairs
from ratchet.trainers.preference_accuracy import accuracy, score
from ratchet.trainers.rules.resampling import systematic


def main(argv: Sequence[str] | None = None) -> int:
    """Read the job file, train, write the result; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ratchet.trainers.train_dpo")
    parser.add_argument("--job", type=Path, required=True, help="the job file, JSON")
    path: Path = parser.parse_args(argv).job
    try:
        job = DpoJob.model_validate_json(path.read_bytes())
        job.output.mkdir(parents=True, exist_ok=True)
    except ValidationError as error:
        print(f"{path}: {explain(error)}", file=sys.stderr)  # noqa: T201 - a person reads it
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        result = train(job)
    except RatchetError as error:
        _write_json(job.output / RESULT_FILE, {"error": str(error)})
        print(error, file=sys.stderr)  # noqa: T201
        return EXIT_TRAINING
    _write_json(job.output / RESULT_FILE, result)
    return 0


def train(job: DpoJob) -> dict[str, Any]:
    """Train the adapter of one job.

    Returns:
        ``weights_sha256`` (of ``adapter_model.safetensors``), ``seconds``, ``n`` pairs trained on,
        ``too_long`` pairs left out, ``steps``, ``dtype``, ``metrics`` (loss first and last, reward accuracy and
        margin of the last steps) and, with a holdout, its preference accuracy ``holdout_before`` and
        ``holdout_after``, by the answer and (``…_per_token``) by the token, which does not favour
        short answers.

    Raises:
        DatasetError: the dataset cannot be read.
        TrainingError: nothing to learn from, or the loss is no longer a finite number.
    """
    started = time.monotonic()
    params = job.params
    rows = read_rows(job.dataset)
    holdout_rows = read_rows(job.holdout) if job.holdout else []
    if not rows:
        raise TrainingError(f"{job.dataset} has no pairs: there is nothing to learn from")

    # Everything is on disk. Threads that wait shall sleep, for the model server shares these cores.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _keep_memory()
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    if params.threads:
        torch.set_num_threads(params.threads)

    # 1. The model, and the pairs as the token ids that serving would see.
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(job.base_model))
        dtype = _dtype(params.dtype, torch)
        model = AutoModelForCausalLM.from_pretrained(str(job.base_model), dtype=dtype)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the base model at {job.base_model} cannot be loaded: {error}") from error
    encoded, kept = encode_pairs(tokenizer, rows, params.max_length)
    holdout, _ = encode_pairs(tokenizer, holdout_rows, params.max_length)
    if not encoded:
        raise TrainingError(f"no pair fits into max_length={params.max_length} tokens: there is nothing to learn from")
    try:
        drawn = systematic([row.weight for row in kept])
    except ValueError as error:
        raise DatasetError(f"{job.dataset}: {error}") from error
    dataset = Dataset.from_list(
        [
            {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
            for pair in (encoded[index] for index in drawn)
        ]
    )

    # 2. TRL's trainer, told that its pairs are token ids already.
    class EncodedDPOTrainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    steps = max(1, math.ceil(math.ceil(len(drawn) / params.batch_size) * params.epochs))
    progress = job.output / PROGRESS_FILE
    progress.write_bytes(b"")
    history: list[dict[str, float]] = []

    class Progress(TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            step = int(state.global_step)
            left = (time.monotonic() - self.began) / max(1, step) * (steps - step)
            line = {
                "step": step,
                "steps": steps,
                "loss": float(logs["loss"]),
                "reward_accuracy": float(logs["rewards/accuracies"]),
                "reward_margin": float(logs["rewards/margins"]),
                "grad_norm": float(logs["grad_norm"]),
                "lr": float(logs["learning_rate"]),
                "eta_s": round(left, 1),
            }
            for name in ("loss", "grad_norm"):
                if not math.isfinite(line[name]):
                    raise TrainingError(f"{name} is {line[name]} at step {step} of {steps}: the run stopped")
            history.append(line)
            with progress.open("a") as lines:
                lines.write(json.dumps(line) + "\n")

    trainer = EncodedDPOTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        callbacks=[Progress()],
        peft_config=LoraConfig(
            r=params.lora_r,
            lora_alpha=params.lora_alpha,
            target_modules=params.lora_targets,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        ),
        args=DPOConfig(
            output_dir=str(job.output),
            max_steps=steps,
            per_device_train_batch_size=params.batch_size,
            learning_rate=params.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=math.ceil(steps * params.warmup_share),
            beta=params.beta,
            loss_type=list(params.loss_type),
            loss_weights=list(params.loss_weights),
            max_length=params.max_length,
            seed=params.seed,
            data_seed=params.seed,
            # The weights are in their final dtype already, and the model is small: neither
            # autocasting nor recomputing activations pays for itself.
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_steps=max(1, steps // 50),
            logging_first_step=True,
            # A loss that is not a number must be seen, not averaged away.
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)

    # 3. Held-out accuracy before, training, held-out accuracy after.
    before = None
    if holdout:
        with trainer.model.disable_adapter():
            before = score(trainer.model, holdout)
    training_started = time.monotonic()
    trainer.train()
    training_s = time.monotonic() - training_started
    after = score(trainer.model, holdout) if holdout else None

    # 4. The adapter, written whole before its hash is taken.
    adapter = job.output / ADAPTER_DIR
    trainer.model.save_pretrained(str(adapter), safe_serialization=True)
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    last = history[-max(1, len(history) // 10) :]
    return {
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "seconds": round(time.monotonic() - started, 2),
        "training_seconds": round(training_s, 2),
        "n": len(encoded),
        "too_long": len(rows) - len(encoded),
        "steps": steps,
        "dtype": str(dtype).removeprefix("torch."),
        "metrics": {
            "loss_first": history[0]["loss"],
            "loss_last": _mean([line["loss"] for line in last]),
            "reward_accuracy": _mean([line["reward_accuracy"] for line in last]),
            "reward_margin": _mean([line["reward_margin"] for line in last]),
        },
        "holdout_before": before and accuracy(before),
        "holdout_after": after and accuracy(after),
        "holdout_before_per_token": before and accuracy(before, length_normalised=True),
        "holdout_after_per_token": after and accuracy(after, length_normalised=True),
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


def _dtype(wanted: str, torch: Any) -> Any:
    """Choose the weights' dtype; on a CPU without AMX tiles float32 trained 1.8 times as fast as bfloat16."""
    if wanted == "auto":
        fast = torch.cuda.is_available() or torch.cpu._is_amx_tile_supported()
        wanted = "bfloat16" if fast else "float32"
    return getattr(torch, wanted)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all."""
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main())

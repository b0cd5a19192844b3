"""What is measured on weights instead of answers: held-out pairs and regression tasks, in a process of its own.

``python -m ratchet.trainers.evaluation.scoring JOB`` reads a `ScoringJob` and writes what it found; the memory that a
model takes is given back with the process, which ends with whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, Field

from ratchet.infra.embedded.child import last_line
from ratchet.schemas.errors import RatchetError, TrainingError
from ratchet.trainers.rules.measures import Observed, Value

MODULE = "ratchet.trainers.evaluation.scoring"
_FAILED = 3


class Weights(BaseModel):
    """A model in files: a base model's folder, and an adapter's (None: the base model alone)."""

    base: Path
    adapter: Path | None = None


class ScoringJob(BaseModel):
    """What to measure of which models; ``holdout`` None leaves out the pairs, ``lm_eval`` {} the tasks."""

    models: dict[str, Weights]
    holdout: Path | None = None
    max_length: int = 512
    beta: float = 0.1
    lm_eval: dict[str, str] = Field(default_factory=dict)
    """By our name of it: lm-evaluation-harness's task, or the path of its YAML file."""
    limit: int | None = None
    seed: int = 0


Found = dict[str, dict[str, Observed]]
"""By model and metric."""


async def score(job: ScoringJob, python: str = sys.executable) -> Found:
    """Measure in a child process and wait for it; cancelling ends it.

    Raises:
        TrainingError: it ended without a result; the text has its last words.
    """
    with tempfile.TemporaryDirectory(prefix="ratchet-scoring-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(job.model_dump_json())
        with (folder / "log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                python, "-m", MODULE, str(folder), stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log
            )
            try:
                code = await child.wait()
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        try:
            found = orjson.loads((folder / "found.json").read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            raise TrainingError(f"scoring ended with status {code}: {last_line(folder / 'log')}") from None
    return {model: {name: _read(one) for name, one in metrics.items()} for model, metrics in found.items()}


def main(folder: Path) -> int:
    """Measure, in the child."""
    # whoever started this holds the other end: where that is gone nobody waits for a result
    threading.Thread(target=_end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    job = ScoringJob.model_validate_json((folder / "job.json").read_bytes())
    try:
        found = measure(job)
    except RatchetError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log's last line is what is told
        return _FAILED
    told = {
        model: {
            name: {"values": one.values, "missing": sorted(one.missing), "error": one.error}
            for name, one in metrics.items()
        }
        for model, metrics in found.items()
    }
    part = folder / "found.part"
    part.write_bytes(orjson.dumps(told))
    part.rename(folder / "found.json")
    return 0


def _end_with(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os._exit(1)


def measure(job: ScoringJob) -> Found:
    """Load each base model once, with each of its adapters in turn.

    Returns:
        ``preference_accuracy`` (1 where the better answer is likelier) and ``reward_margin`` (nats) of each pair, and
        ``lm_eval:<task>`` of each example, by model. A task that cannot be measured has its ``error``.

    Raises:
        DatasetError: the pairs cannot be used.
        TrainingError: a model cannot be loaded.
    """
    from ratchet.trainers.training.job import read_rows

    rows = read_rows(job.holdout, "dpo") if job.holdout else []  # before anything heavy is loaded
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ratchet.trainers.evaluation.regression import examples
    from ratchet.trainers.preference_accuracy import PairScores
    from ratchet.trainers.preference_accuracy import score as score_pairs
    from ratchet.trainers.training.encoding import encode_pairs

    found: Found = {}
    for base in dict.fromkeys(one.base for one in job.models.values()):
        torch.manual_seed(job.seed)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(base))
            plain = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise TrainingError(f"the base model at {base} cannot be loaded: {error}") from error
        pairs, _ = encode_pairs(tokenizer, rows, job.max_length)
        reference: list[PairScores] = score_pairs(plain, pairs) if pairs else []
        for name, weights in job.models.items():
            if weights.base != base:
                continue
            model = plain if weights.adapter is None else _adapted(plain, weights.adapter)
            metrics: dict[str, Observed] = {}
            if pairs:
                scores = reference if weights.adapter is None else score_pairs(model, pairs)
                metrics |= _of_pairs(scores, reference, job.beta, alone=weights.adapter is None)
            if job.lm_eval:
                metrics |= examples(model, tokenizer, job.lm_eval, job.limit, job.seed)
            found[name] = metrics
            if model is not plain and hasattr(model, "unload"):
                plain = model.unload()
    return found


def _adapted(plain: Any, folder: Path) -> Any:
    """A base model with an adapter on it, or the whole model that was trained of it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    try:
        if (folder / "adapter_config.json").is_file():
            return PeftModel.from_pretrained(plain, str(folder)).eval()
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=plain.dtype).eval()
    except (OSError, ValueError) as error:
        raise TrainingError(f"the adapter at {folder} cannot be loaded: {error}") from error


def _of_pairs(scores: list[Any], reference: list[Any], beta: float, *, alone: bool) -> dict[str, Observed]:
    """Whether the better answer is likelier, and DPO's implicit reward of it less the worse one's.

    The reward of an answer is β·(log π − log π_ref) (R. Rafailov et al. 2023, "Direct Preference Optimization", eq. 5),
    with the base model as the reference; its own margin is 0 by definition, and not a figure.
    """
    right: dict[str, Value] = {f"{n:06}": (float(one.chosen > one.rejected),) for n, one in enumerate(scores)}
    if alone:
        return {"preference_accuracy": Observed(right)}
    margins: dict[str, Value] = {
        f"{n:06}": (beta * ((one.chosen - ref.chosen) - (one.rejected - ref.rejected)),)
        for n, (one, ref) in enumerate(zip(scores, reference, strict=True))
    }
    return {"preference_accuracy": Observed(right), "reward_margin": Observed(margins)}


def _read(one: Mapping[str, Any]) -> Observed:
    return Observed(
        {name: tuple(value) for name, value in one["values"].items()}, frozenset(one["missing"]), one["error"]
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

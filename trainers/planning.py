"""What a training will take, before it is started: memory, steps, lengths, and time where that is known."""

from __future__ import annotations

import os
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.rules.footprint import MIB, Footprint, Shape, fitting, footprint
from ratchet.trainers.training.job import RESULT_FILE, TrainingJob
from ratchet.trainers.training.rows import Prepared, lengths

GIB = 1024 * MIB
RUNTIME = 700 * MIB
"""What a process has once it has imported what it trains with (measured: 650 MiB on a CPU)."""
ALIKE = ("method", "adapter_type", "quantization", "dtype", "gradient_checkpointing", "precompute_reference", "threads")
"""Runs with these settings in common, on the same base model, take the same time for a token, near enough."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run may take: bytes, whose they are, and how many of them a process takes before it loads a model."""

    available: int
    where: str
    runtime: int
    gpu: bool


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run will take.

    ``lengths`` are tokens of prompt and answer of each row that fits; ``seconds_per_token`` is the median of ``runs``
    recorded runs like it, None where there are none.
    """

    recipe: Recipe
    shape: Shape
    memory: Memory
    footprint: Footprint
    steps: int
    lengths: list[int]
    too_long: int
    seconds_per_token: float | None = None
    runs: int = 0
    advice: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the peak is within what there is."""
        return self.footprint.total <= self.memory.available

    @property
    def tokens(self) -> int:
        """Tokens that go through the model in all steps."""
        rows = self.steps * self.recipe.batch_size * self.recipe.gradient_accumulation
        return round(rows * statistics.fmean(self.lengths))

    def refusal(self) -> str | None:
        """Why it cannot fit, and what would, in one sentence; None: it can."""
        if self.fits:
            return None
        told = (
            f"the run takes about {_gib(self.footprint.total)}, {_gib(self.memory.available)} are {self.memory.where}"
        )
        if not self.advice:
            return f"{told}; no setting makes it fit: take a smaller base model or a machine with more"
        changes = [" and ".join(f"{name} = {_toml(value)}" for name, value in one.items()) for one in self.advice]
        return f"{told}; it fits with {', or with '.join(changes)}"

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`; bytes, tokens and seconds."""
        ordered = sorted(self.lengths)
        seconds = None if self.seconds_per_token is None else self.seconds_per_token * self.tokens
        return {
            "fits": self.fits,
            "refusal": self.refusal(),
            "advice": self.advice,
            "memory": self.footprint.as_json(),
            "available": self.memory.available,
            "available_is": self.memory.where,
            "parameters": self.shape.parameters,
            "trained": self.shape.trained,
            "rows": len(ordered),
            "too_long": self.too_long,
            "length_median": statistics.median_low(ordered),
            "length_longest": ordered[-1],
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": seconds,
            "seconds_from_runs": self.runs,
        }


def plan_run(
    base_model: Path,
    recipe: Recipe,
    *,
    lengths: Sequence[int],
    held_out: Sequence[int],
    too_long: int,
    steps: int,
    here: bool = False,
    jobs: Path | None = None,
) -> RunPlan:
    """Estimate a run.

    Args:
        base_model: its folder.
        recipe: how it is trained.
        lengths: tokens of prompt and (longer) answer of the rows that fit; at least one.
        held_out: likewise of held-out rows.
        too_long: rows that do not fit.
        steps: of the whole run.
        here: this process is the one that will train.
        jobs: the folder of jobs, whose recorded runs say how fast this machine is.

    Raises:
        TrainingError: the base model's configuration cannot be read.
    """
    shape = shape_of(base_model, recipe)
    dtype_bytes = dtype_size(recipe)
    memory = memory_now(recipe, here=here)

    def estimate(changed: Recipe, longest: int) -> Footprint:
        of = shape if changed.adapter_type == recipe.adapter_type else shape_of(base_model, changed)
        scored = min(max(held_out, default=0), changed.max_length)
        return footprint(
            of,
            changed,
            longest=longest,
            held_out=scored,
            dtype_bytes=dtype_bytes,
            runtime=memory.runtime,
            gpu=memory.gpu,
        )

    longest = max(lengths)
    found = estimate(recipe, longest)
    advice: list[dict[str, Any]] = []
    if found.total > memory.available:
        advice = fitting(recipe, longest, memory.available, lambda changed, length: estimate(changed, length).total)
    pace, runs = (None, 0) if jobs is None else recorded_pace(jobs, base_model, recipe)
    return RunPlan(recipe, shape, memory, found, steps, list(lengths), too_long, pace, runs, advice)


def refuse_what_cannot_fit(job: TrainingJob, rows: Prepared) -> None:
    """Plan the run that this process is about to begin.

    Raises:
        TrainingError: it cannot fit; names what would.
    """
    if why := plan_job(job, rows, here=True).refusal():
        raise TrainingError(why)


def plan_job(job: TrainingJob, rows: Prepared, *, here: bool = False, jobs: Path | None = None) -> RunPlan:
    """Estimate the run of a job whose rows are encoded; arguments and errors as `plan_run`."""
    return plan_run(
        job.base_model,
        job.recipe,
        lengths=lengths(rows.drawn, job.recipe),
        held_out=lengths(rows.holdout, job.recipe),
        too_long=rows.too_long,
        steps=rows.steps,
        here=here,
        jobs=jobs,
    )


def shape_of(base_model: Path, recipe: Recipe) -> Shape:
    """Count a model's parameters, and those that would learn, from its configuration alone: nothing is loaded.

    Raises:
        TrainingError: there is no configuration, or none of a model that is known.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from ratchet.trainers.training.model import adapter

    try:
        config = AutoConfig.from_pretrained(str(base_model))
        with torch.device("meta"):
            if recipe.method == "reward":
                config.num_labels = 1
                model: Any = AutoModelForSequenceClassification.from_config(config)
            else:
                model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the base model at {base_model} cannot be planned for: {error}") from error
    head = model.get_output_embeddings()
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    added = adapter(recipe)
    if added is not None:
        with torch.device("meta"):
            model = get_peft_model(model, added)
    parameters = [(weights.numel(), weights.requires_grad) for weights in model.parameters()]
    text = config.get_text_config()
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        parameters=sum(n for n, _ in parameters),
        linear=linear,
        trained=sum(n for n, learns in parameters if learns),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        query=heads * head_width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head_width,
        vocabulary=text.vocab_size,
    )


def dtype_size(recipe: Recipe) -> int:
    """Bytes of a weight that is not quantized, on this machine."""
    from ratchet.trainers.training.model import dtype

    return int(dtype(recipe).itemsize)


def memory_now(recipe: Recipe, *, here: bool = False) -> Memory:
    """What a run may take: what the recipe says, or the GPU's free memory, or the machine's within its limits.

    Args:
        recipe: its ``memory_gib`` goes before everything else.
        here: this process is the one that will train: what it has already is taken as it is.
    """
    import torch

    gpu = torch.cuda.is_available()
    has = _resident() if here and not gpu else 0
    runtime = 0 if gpu else has or RUNTIME
    if recipe.memory_gib is not None:
        return Memory(round(recipe.memory_gib * GIB), "allowed by memory_gib", runtime, gpu)
    if gpu:
        return Memory(int(torch.cuda.mem_get_info()[0]), "free on the GPU", runtime, gpu)
    shared = recipe.distributed.processes if recipe.distributed else 1
    free, where = _machine(), "free on this machine"
    limited = _cgroup()
    if limited is not None and limited < free:
        free, where = limited, "left of this container's limit"
    if shared > 1:
        where += f" for each of {shared} processes"
    return Memory(free // shared + has, where, runtime, gpu)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux: its highest so far, which is not below
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: what there is at all
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


CGROUPS = (
    # limit, use, statistics, and what of the use is given back when it is wanted
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def _cgroup(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes left of the limit of this process's control group, of either version; None where there is none."""
    for limit_file, use_file, given_back in CGROUPS:
        try:
            limit = (root / limit_file).read_text().strip()
            use = int((root / use_file).read_text())
            lines = (root / limit_file).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        if limit == "max":
            return None
        cached = next((int(line.split()[1]) for line in lines if line.split()[0] == given_back), 0)
        return int(limit) - use + cached
    return None


def recorded_pace(jobs: Path, base_model: Path, recipe: Recipe) -> tuple[float | None, int]:
    """Seconds for a token, the median over recorded runs like this one, and how many there are; the last ten count."""
    wanted = {name: getattr(recipe, name) for name in ALIKE}
    found: list[tuple[float, float]] = []
    for file in jobs.glob(f"*/{RESULT_FILE}"):
        try:
            result = orjson.loads(file.read_bytes())
            job = orjson.loads((file.parent / "job.json").read_bytes())
            like = Path(job["base_model"]) == base_model.resolve() and all(
                job["recipe"].get(name) == value for name, value in wanted.items()
            )
            whole = not result.get("resumed_after")  # its seconds are of all its tokens
            if like and whole and result["tokens"] > 0:
                found.append((file.stat().st_mtime, result["training_seconds"] / result["tokens"]))
        except (OSError, KeyError, TypeError, orjson.JSONDecodeError):
            continue  # no run that ended, or of a version that recorded no tokens
    last = [pace for _, pace in sorted(found)[-10:]]
    return (statistics.median(last), len(last)) if last else (None, 0)


def _gib(n: int) -> str:
    return f"{n / GIB:.1f} GiB" if n >= GIB else f"{n / MIB:.0f} MiB"


def _toml(value: Any) -> str:
    return orjson.dumps(value).decode()

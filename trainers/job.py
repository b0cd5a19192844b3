"""One training job, from a request to a registered adapter; every step can be done again after a crash.

The job's folder, ``home/jobs/<job id>/``, remembers what is done: ``plan.json`` (dataset and
recipe), the run's ``result.json``, and ``outcome.json`` (the events that ended it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import DatasetError, TrainingError
from ratchet.schemas.events import Adapter, Training
from ratchet.schemas.explain import explain
from ratchet.schemas.training_policy import ONLINE, Recipe, TrainingPolicy
from ratchet.schemas.training_pool import ManagedRecipe
from ratchet.trainers import dataset as datasets
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.registry import write_whole
from ratchet.trainers.rules import dataset as rules
from ratchet.trainers.rules.dataset import kind_for
from ratchet.trainers.rules.weights import unservable
from ratchet.trainers.training.job import RewardSource, TrainingJob

ELSEWHERE = ("pool", "managed", "dataset", "max_pairs", "max_attempts", "retry_wait_s")
"""Of a request: where to train, what a provider is told, on what, and how often."""
MIN_PAIRS = 8
"""Below this many pairs a run would only memorise them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job trains on and how; made once a job, so a repeated job trains the same."""

    dataset: Dataset
    params: dict[str, Any]
    max_pairs: int | None
    n: int
    job_file: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """The events that ended a job: the adapter (None when it failed) and the last `training.v1`."""

    training: Training
    adapter: Adapter | None


def recipe(policy: TrainingPolicy, wanted: Mapping[str, Any], *, loads: bool = False) -> Recipe:
    """The policy's recipe with a request's own parameters over it, and the learning rate that is meant.

    Args:
        policy: the task's.
        wanted: the request's parameters.
        loads: what comes of it is loaded by model servers beside their base model.

    Raises:
        TrainingError: names the parameter, its value and what is allowed.
    """
    ours = policy.model_dump() | dict(wanted)
    try:
        found = Recipe.model_validate({name: value for name, value in ours.items() if name not in ELSEWHERE})
    except ValidationError as error:
        raise TrainingError(f"training parameters: {explain(error)}") from None
    if loads and (why := unservable(found.model_dump())):
        raise TrainingError(f"training parameters: {why}; allowed: with `ratchet train --no-serve`")
    return found.model_copy(update={"learning_rate": found.rate})


def plan(
    folder: Path,
    dataset: Dataset,
    policy: TrainingPolicy,
    wanted: Mapping[str, Any],
    base_model: Path,
    reward: RewardSource | None = None,
) -> Plan:
    """Write the job file of a request, or read the one that an earlier attempt wrote.

    Args:
        folder: the job's folder.
        dataset: the version to train on.
        policy: the task's recipe.
        wanted: the request's parameters; ``max_pairs`` trains on a part of the dataset.
        base_model: folder of the base model.
        reward: what rewards the answers of grpo and rloo, which take the prompts of rows of every kind.

    Raises:
        TrainingError: too few pairs, or a parameter that is not allowed.
        DatasetError: the dataset's files are not what was built.
    """
    wanted = dict(wanted)
    max_pairs = wanted.pop("max_pairs", None)
    if max_pairs is not None and (isinstance(max_pairs, bool) or not isinstance(max_pairs, int) or max_pairs < 1):
        raise TrainingError(f"training parameters: max_pairs: {max_pairs!r}; allowed: a whole number from 1")
    params = recipe(policy, wanted)
    if params.method not in ONLINE and dataset.kind != kind_for(params.method):
        raise TrainingError(
            f"dataset {dataset.version} is of kind {dataset.kind!r}; allowed for method {params.method!r}: "
            f"{kind_for(params.method)!r}"
        )
    rows = dataset.rows("train")
    dataset.rows("holdout")  # checked against the manifest too
    chosen = rows if max_pairs is None else rules.subset(rows, max_pairs)
    if len(chosen) < MIN_PAIRS:
        raise TrainingError(
            f"dataset {dataset.version} gives {len(chosen)} rows; training needs at least {MIN_PAIRS} to learn from"
        )
    train = dataset.file("train")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if len(chosen) < len(rows):
            train = folder / "train.jsonl"
            write_whole(train, rules.lines(chosen))
        held = dataset.file("holdout") if dataset.manifest["built"]["holdout"] else None
        job = TrainingJob(
            base_model=base_model.resolve(),
            dataset=train.resolve(),
            holdout=held.resolve() if held else None,
            output=folder.resolve(),
            recipe=params,
            reward=reward,
        )
        write_whole(folder / "job.json", job.model_dump_json(indent=2).encode())
        write_whole(folder / "plan.json", orjson.dumps({"dataset": dataset.version}))
    except OSError as error:
        raise TrainingError(f"{error.filename or folder}: {error.strerror}: the job cannot be written") from error
    return Plan(dataset, params.model_dump(), max_pairs, len(chosen), folder / "job.json")


def plan_managed(folder: Path, dataset: Dataset, policy: TrainingPolicy, wanted: Mapping[str, Any]) -> Plan:
    """Say what a provider is to train, and remember the dataset for a repeated job.

    Raises:
        TrainingError: a parameter that is not allowed, or the plan cannot be written.
        DatasetError: the dataset's files are not what was built.
    """
    try:
        recipe = ManagedRecipe.model_validate(wanted.get("managed") or policy.managed.model_dump())
    except ValidationError as error:
        raise TrainingError(f"training parameters: managed: {explain(error)}") from None
    params = {"method": wanted.get("method", policy.method), "seed": wanted.get("seed", policy.seed)}
    params |= {"managed": recipe.model_dump(exclude_none=True)}
    n = len(dataset.rows("train"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "plan.json", orjson.dumps({"dataset": dataset.version}))
    except OSError as error:
        raise TrainingError(f"{error.filename or folder}: {error.strerror}: the job cannot be written") from error
    return Plan(dataset, params, None, n, folder / "plan.json")


def planned_dataset(folder: Path, home: Path) -> Dataset | None:
    """The dataset that an earlier attempt of this job trained on, or None.

    Raises:
        DatasetError: it is named but not there any more.
    """
    file = folder / "plan.json"
    if not file.is_file():
        return None
    try:
        return datasets.find(home, str(orjson.loads(file.read_bytes())["dataset"]))
    except (orjson.JSONDecodeError, KeyError) as error:
        raise DatasetError(f"{file}: no plan ({error})") from None


def read_outcome(folder: Path) -> Outcome | None:
    """How a job ended, or None where it has not."""
    file = folder / "outcome.json"
    if not file.is_file():
        return None
    value = orjson.loads(file.read_bytes())
    adapter = value["adapter"]
    return Outcome(
        parse(Training, orjson.dumps(value["training"])),
        None if adapter is None else parse(Adapter, orjson.dumps(adapter)),
    )


def remembered(folder: Path, outcome: Outcome) -> Outcome:
    """Remember how a job ended, before it is said: a repeated job says the same events again.

    Returns:
        The outcome. Where it cannot be remembered (a full disk), its reason says so: the job has ended all the same,
        and one that is asked for again finds what was trained.
    """
    value = {
        "training": orjson.loads(outcome.training.to_bytes()),
        "adapter": None if outcome.adapter is None else orjson.loads(outcome.adapter.to_bytes()),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "outcome.json", orjson.dumps(value, option=orjson.OPT_INDENT_2))
    except OSError as error:
        note = f"{folder}: {error.strerror}: how it ended is not remembered here"
        reason = "; ".join(filter(None, (outcome.training.reason, note)))
        return Outcome(outcome.training.model_copy(update={"reason": reason}), outcome.adapter)
    return outcome


def figures(result: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None) -> dict[str, float]:
    """The numbers of a run's result.json, flat: what `training.v1` and the manifest carry as metrics.

    Args:
        result: what the run left.
        evaluation: the manifest's; adds the share of held-out answers that pass the task's check.
    """
    completion = (evaluation or {}).get("completion", {}).get("rate")
    metrics = {} if completion is None else {"completion": float(completion)}
    metrics |= {name: float(value) for name, value in result.get("metrics", {}).items()}
    for name in ("seconds", "n", "too_long", "steps", "trained_tokens", "cost_usd"):
        if isinstance(result.get(name), int | float):
            metrics[name] = float(result[name])
    for side in ("before", "after"):
        held = result.get(f"holdout_{side}")
        if held:
            metrics[f"preference_accuracy_{side}"] = float(held["rate"])
            metrics["preference_accuracy_n"] = float(held["n"])
    return metrics

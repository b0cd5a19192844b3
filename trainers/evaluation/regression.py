"""Regression tasks by lm-evaluation-harness on a loaded model: each example's number. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.evaluation_policy import LM_EVAL
from ratchet.trainers.rules.measures import Observed, Value


def examples(
    model: Any, tokenizer: Any, tasks: Mapping[str, str], limit: int | None, seed: int, batch_size: int = 8
) -> dict[str, Observed]:
    """Run the tasks.

    A task is measured by the first metric that its YAML lists. What goes wrong with one task is that task's ``error``:
    the others have their figures all the same.

    Args:
        model: a causal language model of transformers, with or without an adapter of PEFT's.
        tokenizer: its tokenizer.
        tasks: by our name of it, the harness's name or the path of a YAML file.
        limit: examples of each task; None: all.
        seed: of few-shot examples.
        batch_size: sequences in one forward pass.

    Returns:
        By ``lm_eval:<name>``.
    """
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        problem = f"{error}; install ratchet[evaluation]"
        return {LM_EVAL + name: Observed(error=problem) for name in tasks}
    language_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    found = {}
    for name, task in tasks.items():
        try:
            found[LM_EVAL + name] = _one(language_model, task, limit, seed)
        # whatever the harness, its data loaders or a task's own functions raise
        except Exception as error:  # noqa: BLE001 - told as the task's error, and its gates' verdict
            found[LM_EVAL + name] = Observed(error=f"{type(error).__name__}: {error}"[:500])
    return found


def _one(language_model: Any, task: str, limit: int | None, seed: int) -> Observed:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    wanted, folder = _wanted(task)
    results = simple_evaluate(
        language_model,
        tasks=[wanted],
        # the harness's own tasks are thousands of files, which take half a minute to go through
        task_manager=TaskManager(include_path=folder, include_defaults=False) if folder else None,
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    samples = results["samples"]
    if list(samples) != [wanted]:
        raise DatasetError(f"{task} is a group of {len(samples)} tasks; allowed: a single one")
    metric = next(iter(results["higher_is_better"][wanted]))
    if not results["higher_is_better"][wanted][metric]:
        raise DatasetError(f"{task}: of its first metric, {metric}, less is better; allowed: one where more is")
    values: dict[str, Value] = {}
    for sample in samples[wanted]:
        value = sample[metric]
        if isinstance(value, bool | int | float):
            values[f"{int(sample['doc_id']):06}"] = (float(value),)
    if not values:
        raise DatasetError(f"{task}: its metric {metric} has no number of each example")
    return Observed(values)


def _wanted(task: str) -> tuple[str, str | None]:
    """The harness's name of a task, and the folder of its file where it is not one of the harness's own."""
    import yaml

    file = Path(task)
    if file.suffix not in (".yaml", ".yml"):
        return task, None

    class Names(yaml.SafeLoader):
        """Functions that the file names are the harness's to load."""

    Names.add_constructor("!function", lambda loader, node: str(node.value))
    with file.open(encoding="utf-8") as text:
        config = yaml.load(text, Loader=Names)  # noqa: S506 - a safe loader with one more tag, read as text
    name = config.get("task") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise DatasetError(f"{file}: task: {name!r}; allowed: a name")
    return name, str(file.parent)

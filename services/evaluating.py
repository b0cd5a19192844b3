"""Put together what measures: an adapter before it is registered, or whenever somebody asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.services import wiring
from ratchet.services.learning import bases, evaluated_replicas

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.settings import Settings
    from ratchet.schemas.events import Adapter
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.trainers.bases import Base
    from ratchet.trainers.evaluation.evaluator import Evaluator
    from ratchet.trainers.evaluation.winning import Bench


def evaluator(s: Settings, store: Store, *, serve: bool = True) -> Evaluator:
    """What evaluates trained adapters; without ``serve`` nothing can be asked."""
    from ratchet.trainers.evaluation.evaluation import Around
    from ratchet.trainers.evaluation.evaluator import Evaluator

    return Evaluator(
        Around(
            store=store,
            config_dir=s.config_dir,
            bases=bases(s, serve=serve),
            folder=wiring.shelf(s).folder,
            bench=lambda task, policy: _bench(s, store, task, policy),
        )
    )


def _bench(s: Settings, store: Store, task: str, policy: TaskPolicy) -> Bench:
    """The task's pairwise judge, advisory until people's labels bear its word out."""
    from ratchet.consumers.calibration import in_force
    from ratchet.consumers.pairwise import comparer
    from ratchet.infra import clock
    from ratchet.trainers.evaluation.winning import Bench

    made = comparer(task, policy, wiring.judges(s), wiring.judge_cache(s), s.rubrics)
    judge = in_force(store, task, policy, clock.now())
    if judge.judge not in ("", made.word):
        return Bench(made, f"{made.word} is not the judge that people's labels are about")
    return Bench(made, "" if judge.standing.trusted else judge.standing.reason)


def matrix_now(s: Settings, of: str) -> dict[str, Any]:
    """Measure base, stable and a candidate on the same rows now, whatever was measured when it was trained.

    Args:
        s: the settings.
        of: an adapter; or a task, whose running candidate that is, or its newest registered adapter.

    Returns:
        ``adapter``, ``task``, ``matrix``, ``gates`` and ``rejected`` (None, or why the gates would reject it).

    Raises:
        RatchetError: no such adapter or task, or a server refused or is away.
    """
    from ratchet.schemas.errors import DatasetError, SettingsError
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.registry import Placed

    with wiring.store(s) as store:
        manifest = _candidate(store, of)
        policy = s.tasks.get(manifest.task, TaskPolicy())
        try:
            found = datasets.find(s.home, manifest.dataset)
        except DatasetError:
            found = None
        data = None if found is None or found.erased else found
        prepared = evaluator(s, store).prepare(manifest.task, policy, _base_of(s, manifest), data, whole=True)
        if not prepared.metrics:
            raise SettingsError(
                f"tasks.{manifest.task}.evaluation: nothing to measure; allowed: prompts, metrics, gates or lm_eval"
            )
        folder = Path(manifest.path) if manifest.served_as else wiring.shelf(s).folder(manifest)
        placed = Placed(manifest.name, folder, manifest.weights_sha256, dict(manifest.files), manifest.served_as)
        evaluated = asyncio.run(prepared.run(placed, manifest.params, {}))
    figures = evaluated.figures
    return {
        "adapter": manifest.name,
        "task": manifest.task,
        "matrix": figures["matrix"],
        "gates": figures.get("gates", []),
        "rejected": evaluated.rejected,
    }


def matrix_stored(s: Settings, of: str) -> dict[str, Any]:
    """The matrix that was measured when an adapter was trained, as `matrix_now` gives it.

    Raises:
        SettingsError: no such adapter or task, or its training measured none.
    """
    from ratchet.schemas.errors import SettingsError

    with wiring.store(s) as store:
        manifest = _candidate(store, of)
    measured = manifest.evaluation
    if "matrix" not in measured:
        raise SettingsError(f"{manifest.name}: its training measured no matrix; leave out --stored to measure it now")
    return {
        "adapter": manifest.name,
        "task": manifest.task,
        "matrix": measured["matrix"],
        "gates": measured.get("gates", []),
        "rejected": manifest.reason if manifest.status == "rejected" else None,
    }


def _candidate(store: Store, of: str) -> Adapter:
    from ratchet.schemas.errors import SettingsError
    from ratchet.schemas.ids import ADAPTER_NAME
    from ratchet.services.controller.seed import adapters, rollouts

    known = adapters(store)
    name = of if ADAPTER_NAME.match(of) else None
    if name is None:
        running = [one.candidate for one in rollouts(store) if one.task == of and one.status in ("running", "paused")]
        registered = [one.name for one in known if one.task == of and one.status == "registered"]
        name = next((one for one in [*running, *reversed(registered)] if one), None)
    found = next((one for one in known if one.name == name), None)
    if found is None:
        raise SettingsError(f"{of!r}: no adapter of that name or task is in the registry; `ratchet adapters list`")
    return found


def evaluate_now(s: Settings, adapter: str | None, task: str | None, version: str | None) -> dict[str, Any]:
    """Measure an adapter (or the base model) on the task's held-out prompts and on a dataset's held-out pairs.

    Returns:
        ``model, task, completion, preference_accuracy, notes``; figures that could not be measured
        are None, and ``notes`` says why.

    Raises:
        RatchetError: no such adapter, task or dataset, or the model server refused.
    """
    from ratchet.schemas.errors import SettingsError
    from ratchet.schemas.ids import ADAPTER_NAME
    from ratchet.trainers import registry

    manifest = None
    if adapter is not None:
        named = ADAPTER_NAME.match(adapter)
        if named is None:
            raise SettingsError(f"{adapter!r} names no adapter; allowed: <task>@v<number>-<8 hex digits>")
        manifest, task = registry.read(s.home / "adapters" / adapter), task or named["task"]
    if task is None:
        if len(s.tasks) != 1:
            raise SettingsError(f"--task: name the task; declared: {', '.join(s.tasks) or 'none'}")
        (task,) = s.tasks
    notes: list[str] = []
    return {
        "model": adapter or s.base_model,
        "task": task,
        "completion": _completion(s, task, manifest, notes),
        "preference_accuracy": _preference_accuracy(s, task, manifest, version, notes),
        "notes": notes,
    }


def _completion(s: Settings, task: str, manifest: Adapter | None, notes: list[str]) -> dict[str, Any] | None:
    from ratchet.schemas.errors import ModelError
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.trainers.evaluation.completion import completion, completion_check
    from ratchet.trainers.evaluation.held_out import read_evaluation

    policy = s.tasks.get(task, TaskPolicy())
    prompts = policy.evaluation.prompts
    if prompts is None or policy.completion == "outcome":
        notes.append(f"completion: task {task!r} declares no evaluation file with a check to complete it by")
        return None
    base = _base_of(s, manifest)
    serving = base.serving
    assert serving is not None, "bases are made to be asked"
    try:
        if manifest is not None and serving.replicas is not None:
            serving.replicas.load_adapter(manifest.name, wiring.shelf(s).folder(manifest))
        elif serving.replicas is not None and not evaluated_replicas(s).ready():
            raise ModelError(f"no vLLM at {', '.join(s.vllm)}")
    except ModelError as error:
        notes.append(f"completion: {error}")
        return None
    rows, check = read_evaluation(s.config_dir / prompts), completion_check(task, policy, s.config_dir)
    model = (manifest.served_as or manifest.name) if manifest else s.base_model

    async def ask() -> dict[str, Any]:
        async with serving.chat() as client:
            measured = await completion(
                client,
                model,
                rows,
                check,
                folder=s.config_dir,
                system_prompt=policy.system_prompt,
                max_tokens=policy.max_tokens,
            )
        return measured.as_json()

    return asyncio.run(ask())


def _base_of(s: Settings, manifest: Adapter | None) -> Base:
    """Where an adapter's base model is (the base model itself: the first pool's)."""
    from ratchet.trainers.bases import FIRST

    known = bases(s)
    if manifest is None:
        return known[FIRST]
    return next((base for base in known.values() if base.model == manifest.base_model), known[FIRST])


def _preference_accuracy(
    s: Settings, task: str, manifest: Adapter | None, version: str | None, notes: list[str]
) -> dict[str, Any] | None:
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.trainers import dataset as datasets

    base = _base_of(s, manifest)
    if base.path is None:
        notes.append(f"preference accuracy: {base.model} is a provider's, whose probabilities are not to be had")
        return None
    wanted = version or (manifest.dataset if manifest else None)
    found = datasets.find(s.home, wanted) if wanted else datasets.latest(s.home, task, "preference")
    if found is None or not found.manifest["built"]["holdout"]:
        notes.append(f"preference accuracy: {'no dataset' if found is None else found.version} with held-out pairs")
        return None
    from ratchet.trainers.preference_accuracy import preference_accuracy
    from ratchet.trainers.training.job import PreferenceRow

    rows = [PreferenceRow.model_validate(row) for row in found.rows("holdout")]
    policy = s.tasks.get(task, TaskPolicy()).training
    length = int(str((manifest.params if manifest else {}).get("max_length", policy.max_length)))
    folder = base.path()
    measured: dict[str, Any] = {"dataset": found.version}
    measured["base"] = dict(preference_accuracy(folder, None, rows, max_length=length, dtype="float32"))
    if manifest is not None:
        measured["adapter"] = dict(
            preference_accuracy(folder, wiring.shelf(s).folder(manifest), rows, max_length=length, dtype="float32")
        )
    return measured

"""What a training would take, before anything of it is started."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings


def plan_now(s: Settings, task: str, version: str | None, params: dict[str, Any], *, serve: bool) -> dict[str, Any]:
    """Plan a training on a dataset that is there; nothing is written, asked for or loaded.

    Args:
        s: the settings.
        task: the task.
        version: the dataset; None: the latest of the kind that the method learns from.
        params: over the task's recipe, see `Recipe`; also ``max_pairs``.
        serve: what comes of it is to be loaded by model servers.

    Returns:
        `RunPlan.as_json`, and ``dataset`` and ``base_model``.

    Raises:
        DatasetError: there is none.
        TrainingError: a parameter that is not allowed, too few rows, or a pool whose model is a provider's.
    """
    from ratchet.schemas.errors import DatasetError, TrainingError
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.services.learning import bases
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers import job as jobs
    from ratchet.trainers.bases import FIRST
    from ratchet.trainers.planning import plan_job
    from ratchet.trainers.rules.dataset import kind_for
    from ratchet.trainers.training.job import TrainingJob
    from ratchet.trainers.training.model import load_tokenizer
    from ratchet.trainers.training.rows import prepare, read

    policy = s.tasks.get(task, TaskPolicy()).training
    wanted = jobs.recipe(policy, params, loads=serve)
    pool = str(params.get("pool") or policy.pool or FIRST)
    base = bases(s).get(pool)
    if base is None or base.path is None:
        raise TrainingError(f"pool {pool!r}: allowed: one whose base model is trained here")
    kind = kind_for(wanted.method)
    found = datasets.find(s.home, version) if version else datasets.latest(s.home, task, kind)
    if found is None:
        raise DatasetError(f"task {task!r} has no dataset of kind {kind!r}; `ratchet dataset build {task}` makes one")
    with TemporaryDirectory(prefix="ratchet-plan-") as scratch:
        planned = jobs.plan(Path(scratch), found, policy, params, base.path())
        job = TrainingJob.model_validate_json(planned.job_file.read_bytes())
        rows = prepare(job, *read(job), load_tokenizer(job.base_model, job.recipe))
        told = plan_job(job, rows, jobs=s.home / "jobs").as_json()
    return {"dataset": found.version, "base_model": base.model} | told

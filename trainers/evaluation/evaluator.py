"""What a trained adapter is asked before it is registered: prepared before the training, run after it."""

from __future__ import annotations

from pathlib import Path

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.policies import TaskPolicy
from ratchet.trainers.bases import Base
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.evaluation.answers import REFERENCED, reference_of
from ratchet.trainers.evaluation.completion import completion_check
from ratchet.trainers.evaluation.evaluation import Around, Evaluation
from ratchet.trainers.evaluation.held_out import EvaluationSet, read_evaluation

ANYWAY = ("latency_p50", "latency_p95", "throughput")
"""What a matrix that somebody asks for has beside completion, where the task's policy names nothing to measure."""


class Evaluator:
    """Makes evaluations ready."""

    def __init__(self, around: Around) -> None:
        self._around = around

    @property
    def config_dir(self) -> Path:
        """The folder of ``ratchet.toml``, which a task's files are relative to."""
        return self._around.config_dir

    def prepare(
        self, task: str, policy: TaskPolicy, base: Base, dataset: Dataset | None, *, whole: bool = False
    ) -> Evaluation:
        """Read what will be asked, and refuse before hours of training what can never be evaluated.

        Args:
            task: its name.
            policy: its policy.
            base: the candidate's.
            dataset: what the candidate is trained on; None: that is not to be had any more.
            whole: measure base and stable too where the policy has no gates.

        Raises:
            DatasetError: an evaluation file or check that cannot be used, or a dataset that trains on its prompts.
            SettingsError: the judge or its rubric cannot be used.
        """
        ours, folder = policy.evaluation, self._around.config_dir
        file = folder / ours.prompts if ours.prompts else None
        if dataset is not None:
            EvaluationSet.of(*(folder / one for one in ours.files.values())).refuse_touched(dataset)
        metrics = ours.measured or (list(ANYWAY) if whole and file else [])
        check, prompts, bench = None, {}, None
        if base.serving is not None:
            prompts = {name: read_evaluation(folder / one) for name, one in ours.files.items()}
            if file is not None and policy.completion != "outcome":
                check = completion_check(task, policy, folder)
            if "win_rate" in metrics:
                if self._around.bench is None or not (policy.judge.enabled and policy.pairwise.enabled):
                    raise DatasetError(f"task {task!r} measures win_rate, and its pairwise judge is switched off")
                bench = self._around.bench(task, policy)
        for metric in set(metrics) & set(REFERENCED):
            if not any(reference_of(row) for row in prompts.get("prompts", [{"reference": " "}])):
                raise DatasetError(f"{file}: no 'reference' in any row, and the task measures {metric}")
        for name, one in zip(ours.lm_eval_names, ours.lm_eval, strict=True):
            if name != one and not (folder / one).is_file():
                raise DatasetError(f"tasks.{task}.evaluation.lm_eval: no file {folder / one}")
        return Evaluation(self._around, task, policy, base, dataset, metrics, check, prompts, bench)

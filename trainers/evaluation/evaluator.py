"""What a trained adapter is asked before it is registered: prepared before the training, run after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet.schemas.checks import Check
from ratchet.schemas.errors import ModelError
from ratchet.schemas.policies import TaskPolicy
from ratchet.trainers.adapters.verifying import verify_placed
from ratchet.trainers.bases import Base, Replicas
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.evaluation.completion import Completion, completion, completion_check
from ratchet.trainers.evaluation.held_out import EvaluationSet, read_evaluation
from ratchet.trainers.registry import Placed

log = logging.getLogger("ratchet.trainer")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation found.

    ``figures`` is the manifest's ``evaluation``, ``metrics`` what the job's last event says of it; ``rejected`` why
    the adapter must not be rolled out, None where nothing speaks against it.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    rejected: str | None = None


class Evaluator:
    """Makes a job's evaluation ready.

    Args:
        config_dir: the folder of ``ratchet.toml``, which a task's files are relative to.
        patience_s: how long a vLLM that refuses or is away is asked again.
    """

    def __init__(self, *, config_dir: Path, patience_s: float = 300.0) -> None:
        self.config_dir, self._patience_s = config_dir, patience_s

    def prepare(self, task: str, policy: TaskPolicy, base: Base, dataset: Dataset) -> Evaluation:
        """Read what will be asked, and refuse before hours of training what can never be evaluated.

        Raises:
            DatasetError: an evaluation file or check that cannot be used, or a dataset that trains on its prompts.
        """
        file = self.config_dir / policy.evaluation if policy.evaluation else None
        EvaluationSet.of(file).refuse_touched(dataset)
        check, rows = None, []
        if base.serving is not None and file is not None and policy.completion != "outcome":
            check, rows = completion_check(task, policy, self.config_dir), read_evaluation(file)
        return Evaluation(policy, base, check, rows, self.config_dir, self._patience_s)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One job's evaluation, made by `Evaluator.prepare`."""

    policy: TaskPolicy
    base: Base
    check: Check | None
    rows: list[dict[str, Any]]
    config_dir: Path
    patience_s: float

    async def run(self, placed: Placed, params: Mapping[str, Any], result: Mapping[str, Any]) -> Evaluated:
        """Load the adapter everywhere, and measure it.

        Args:
            placed: the adapter.
            params: how it was trained.
            result: of its training run, which has measured the held-out pairs.

        Raises:
            ModelError: a model server refused or is away.
        """
        if params.get("method") == "reward":
            return of_reward_model(result.get("holdout_after"))
        measured = await self._completion(placed)
        figures: dict[str, Any] = {}
        if measured is not None:
            figures["completion"] = measured.as_json()
        if result.get("holdout_before") and result.get("holdout_after"):
            figures["preference_accuracy"] = {"before": result["holdout_before"], "after": result["holdout_after"]}
        if result.get("rewards_before") and result.get("rewards_after"):
            figures["rewards"] = {"before": result["rewards_before"], "after": result["rewards_after"]}
        metrics = {"completion": measured.rate} if measured and measured.rate is not None else {}
        return Evaluated(figures, metrics, rejection(self.policy.retraining.min_completion, measured))

    async def _completion(self, placed: Placed) -> Completion | None:
        if self.base.serving is None:
            return None
        if self.base.serving.replicas is not None:
            await asyncio.to_thread(verify_placed, placed)
            await load(self.base.serving.replicas, placed.name, placed.folder, self.patience_s)
        if self.check is None:
            return None
        async with self.base.serving.chat() as client:
            return await completion(
                client,
                placed.served_as or placed.name,
                self.rows,
                self.check,
                folder=self.config_dir,
                system_prompt=self.policy.system_prompt,
                max_tokens=self.policy.max_tokens,
            )


async def load(replicas: Replicas, name: str, folder: Path, patience_s: float) -> None:
    """Load an adapter; training took long, so a replica that is starting again is waited for.

    Raises:
        ModelError: it was not loaded within ``patience_s`` seconds.
    """
    wait_s, waited = 1.0, 0.0
    while True:
        try:
            return await asyncio.to_thread(replicas.load_adapter, name, folder)
        except ModelError as error:
            if waited >= patience_s:
                raise ModelError(f"{name} is trained but was not loaded: {error}") from error
            log.warning("%s is not loaded yet: %s", name, error)
        await asyncio.sleep(wait_s)
        waited, wait_s = waited + wait_s, min(2 * wait_s, 30.0)


def of_reward_model(accuracy: Mapping[str, Any] | None) -> Evaluated:
    """Say whether a reward model may reward: it is neither loaded nor asked, since it answers nothing.

    Args:
        accuracy: how often it rewards the better answer of held-out pairs more, with its 95% interval; None: there
            were none.
    """
    if accuracy is None:
        return Evaluated(rejected="no held-out pairs: nobody knows whether it tells better answers from worse")
    why = None
    if accuracy["low"] <= 0.5:
        why = (
            f"it rewards the better answer of {accuracy['k']} of {accuracy['n']} held-out pairs, which may be chance "
            f"(95% interval {accuracy['low']:.1%} to {accuracy['high']:.1%})"
        )
    return Evaluated({"reward_accuracy": dict(accuracy)}, rejected=why)


def rejection(least: float, evaluated: Completion | None) -> str | None:
    """Why an adapter must not be rolled out, or None; what was not measured does not pass a floor."""
    if least <= 0:
        return None
    if evaluated is None or evaluated.rate is None:
        return f"completion was not measured on held-out prompts, and the task asks for at least {least:.1%}"
    if evaluated.rate < least:
        return f"completion {evaluated.rate:.1%} ({evaluated.k} of {evaluated.n}) is below the task's {least:.1%}"
    if evaluated.k < least * (evaluated.n + evaluated.unjudged):
        told = f"{evaluated.k} of {evaluated.n}, and of {evaluated.unjudged} more the check cannot say"
        return f"completion was measured on too few held-out prompts for the task's {least:.1%} ({told})"
    return None

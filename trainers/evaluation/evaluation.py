"""One candidate's evaluation: whom it is measured beside, what is asked, and what is told of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.schemas.checks import Check, RefusalCheck
from ratchet.schemas.errors import TrainingError
from ratchet.schemas.evaluation_policy import LM_EVAL, ON_PAIRS
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import BASE
from ratchet.schemas.policies import TaskPolicy
from ratchet.trainers.bases import Base
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.evaluation.answers import REFERENCED, observe, refusals
from ratchet.trainers.evaluation.asking import Asked, Reply, ask
from ratchet.trainers.evaluation.completion import Completion, counted, observed, verdicts
from ratchet.trainers.evaluation.evaluated import Evaluated, of_reward_model
from ratchet.trainers.evaluation.scoring import ScoringJob, Weights, score
from ratchet.trainers.evaluation.sides import Side, base_side, load, load_candidate, placed_side, stable_side
from ratchet.trainers.evaluation.winning import Bench, win_rate
from ratchet.trainers.registry import Placed, manifests
from ratchet.trainers.rules.acceptance import advised, answer, rejection
from ratchet.trainers.rules.matrix import matrix
from ratchet.trainers.rules.measures import Observed

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Around:
    """What evaluations of every task share.

    Args:
        store: ClickHouse, which knows what is stable, and every adapter's manifest.
        config_dir: the folder that a task's evaluation files are relative to.
        bases: what is trained on, by pool.
        folder: gives the verified files of a registered adapter.
        bench: makes a task's judge of comparisons; None: there is none.
        python: interpreter of the scoring process.
        patience_s: how long a vLLM that refuses or is away is asked again.
    """

    store: Store
    config_dir: Path
    bases: Mapping[str, Base]
    folder: Callable[[Adapter], Path]
    bench: Callable[[str, TaskPolicy], Bench] | None = None
    python: str = sys.executable
    patience_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One candidate's evaluation, made by `Evaluator.prepare`."""

    around: Around
    task: str
    policy: TaskPolicy
    base: Base
    dataset: Dataset | None
    metrics: list[str]
    check: Check | None
    prompts: dict[str, Rows]
    bench: Bench | None

    async def run(self, placed: Placed, params: Mapping[str, Any], result: Mapping[str, Any]) -> Evaluated:
        """Load the adapter everywhere, and measure it; with gates, base and stable beside it.

        Args:
            placed: the adapter.
            params: how it was trained.
            result: of its training run, which has measured the held-out pairs.

        Raises:
            ModelError: a model server refused or is away.
            TrainingError: the stable adapter is not in the registry, or no pool has its base model.
        """
        if params.get("method") == "reward":
            return of_reward_model(result.get("holdout_after"))
        candidate = placed_side(placed, self.base)
        await load_candidate(candidate, placed, self.around.patience_s)
        sides = await self._sides(candidate)
        found: dict[str, dict[str, Observed]] = {side: {} for side in sides}
        counts = await self._answers(sides, found)
        notes = await self._weights(sides, found, params)
        return await asyncio.to_thread(self._told, sides, found, counts, notes, result)

    async def _sides(self, candidate: Side) -> dict[str, Side]:
        """By their places in the matrix; the candidate alone where nothing is compared."""
        if not self.metrics:
            return {"candidate": candidate}
        around, sides = self.around, {"base": base_side(self.base)}
        named = [str(row["stable"]) for row in around.store.query("stable_adapter", task=self.task)]
        if named and named[0] not in (BASE, candidate.name):
            manifest = next((one for one in manifests(around.store) if one.name == named[0]), None)
            if manifest is None:
                raise TrainingError(
                    f"stable adapter {named[0]} is not in the registry: nothing can be compared with it"
                )
            stable = await asyncio.to_thread(stable_side, manifest, around.bases, around.folder)
            if stable.base.serving and stable.base.serving.replicas and stable.folder:
                await load(stable.base.serving.replicas, stable.name, stable.folder, around.patience_s)
            sides["stable"] = stable
        return sides | {"candidate": candidate}

    async def _answers(self, sides: Mapping[str, Side], found: dict[str, dict[str, Observed]]) -> Completion | None:
        """Ask every prompt that something is measured on; gives the candidate's completion."""
        wanted = {name: rows for name, rows in self.prompts.items() if self._asks(name)}
        served = {name: side.base.serving for name, side in sides.items() if side.base.serving is not None}
        if not wanted or not served:
            return None
        replies: dict[str, dict[str, list[Reply]]] = {}
        async with AsyncExitStack() as stack:
            asked = [
                Asked(await stack.enter_async_context(serving.chat()), sides[name].served_as)
                for name, serving in served.items()
            ]
            for name, rows in wanted.items():
                answers = await ask(
                    asked,
                    rows,
                    system_prompt=self.policy.system_prompt,
                    concurrency=self.policy.evaluation.concurrency,
                    max_tokens=self.policy.max_tokens,
                )
                replies[name] = dict(zip(served, answers, strict=True))
        counts = await asyncio.to_thread(self._measured, replies, found)
        if self.bench is not None and "prompts" in replies:
            rows, said = wanted["prompts"][: self.policy.evaluation.judged], replies["prompts"]
            try:
                found["candidate"]["win_rate"] = await win_rate(
                    self.bench.comparer,
                    rows,
                    said["candidate"],
                    said.get("stable", said["base"]),
                    self.policy.system_prompt,
                )
            finally:
                await self.bench.close()
        return counts

    def _asks(self, prompts: str) -> bool:
        if prompts == "prompts":
            return self.check is not None or bool(self.metrics)
        return {"harmful": "refusal", "harmless": "over_refusal"}[prompts] in self.metrics

    def _measured(
        self, replies: Mapping[str, Mapping[str, list[Reply]]], found: dict[str, dict[str, Observed]]
    ) -> Completion | None:
        phrases = [phrase for one in self.policy.checks if isinstance(one, RefusalCheck) for phrase in one.phrases]
        counts = None
        for side, answers in replies.get("prompts", {}).items():
            rows, texts = self.prompts["prompts"], [reply.text for reply in answers]
            if self.check is not None:
                said = verdicts(
                    rows, texts, self.check, folder=self.around.config_dir, system_prompt=self.policy.system_prompt
                )
                found[side]["completion"] = observed(said)
                if side == "candidate":
                    counts = counted(rows, texts, said, self.check.name)
            for metric in self.metrics:
                if metric in (*REFERENCED, "json_valid", "required_fields", "latency_p50", "latency_p95", "throughput"):
                    found[side][metric] = observe(metric, rows, answers, self.policy.evaluation.required_fields)
        for prompts, metric in (("harmful", "refusal"), ("harmless", "over_refusal")):
            for side, answers in replies.get(prompts, {}).items():
                found[side][metric] = refusals(answers, phrases)
        return counts

    async def _weights(
        self, sides: Mapping[str, Side], found: dict[str, dict[str, Observed]], params: Mapping[str, Any]
    ) -> list[str]:
        """Measure pairs and regression tasks on the weights; gives what could not be."""
        ours, notes = self.policy.evaluation, []
        paired = bool(set(self.metrics) & set(ON_PAIRS))
        if not paired and not ours.lm_eval:
            return []
        holdout = None
        if paired:
            data = self.dataset
            if data is not None and data.kind == "preference" and data.manifest["built"]["holdout"] and not data.erased:
                holdout = data.file("holdout")
            else:
                notes.append("preference_accuracy, reward_margin: the dataset has no held-out pairs")
        here = {name: side for name, side in sides.items() if not side.provided and side.base.path is not None}
        notes += [f"{sides[name].name}: a provider's, whose weights are not here" for name in sides.keys() - here]
        models = {
            name: Weights(base=await asyncio.to_thread(side.base.path), adapter=side.folder)
            for name, side in here.items()
            if side.base.path is not None
        }
        if not models or (holdout is None and not ours.lm_eval):
            return notes
        job = ScoringJob(
            models=models,
            holdout=holdout,
            max_length=int(params.get("max_length", self.policy.training.max_length)),
            beta=float(params.get("beta", self.policy.training.beta)),
            lm_eval={
                name: str(self.around.config_dir / one) if name != one else one
                for name, one in zip(ours.lm_eval_names, ours.lm_eval, strict=True)
            },
            limit=ours.lm_eval_limit,
            seed=ours.seed,
        )
        try:
            scored = await score(job, self.around.python)
        except TrainingError as error:
            # what a gate asks of it is then an error, which is no pass; the answers keep their figures
            asked = [one for one in self.metrics if one.startswith(LM_EVAL) or (holdout and one in ON_PAIRS)]
            scored = {name: {metric: Observed(error=str(error)) for metric in asked} for name in models}
        for name, metrics in scored.items():
            found[name] |= {metric: one for metric, one in metrics.items() if metric in self.metrics}
        return notes

    def _told(
        self,
        sides: Mapping[str, Side],
        found: Mapping[str, Mapping[str, Observed]],
        counts: Completion | None,
        notes: list[str],
        result: Mapping[str, Any],
    ) -> Evaluated:
        ours = self.policy.evaluation
        figures: dict[str, Any] = {}
        if counts is not None:
            figures["completion"] = counts.as_json()
        if result.get("holdout_before") and result.get("holdout_after"):
            figures["preference_accuracy"] = {"before": result["holdout_before"], "after": result["holdout_after"]}
        if result.get("rewards_before") and result.get("rewards_after"):
            figures["rewards"] = {"before": result["rewards_before"], "after": result["rewards_after"]}
        if self.metrics:
            names = {name: side.name for name, side in sides.items()}
            figures["matrix"] = matrix(names, found, ours.seed) | {"notes": notes}
            if self.bench is not None:
                figures["matrix"]["judge"] = {"id": self.bench.comparer.word, "advisory": self.bench.advisory}
        other = found.get("stable", found.get("base", {}))
        answers = [
            answer(gate, found["candidate"].get(gate.metric), other.get(gate.metric), ours.seed) for gate in ours.gates
        ]
        if self.bench is not None and self.bench.advisory:
            answers = [advised(one, self.bench.advisory) if one.metric == "win_rate" else one for one in answers]
        if answers:
            figures["gates"] = [one.as_json() for one in answers]
        return Evaluated(figures, rejection(answers, dry_run=ours.dry_run))

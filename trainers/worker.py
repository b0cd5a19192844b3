"""The training worker: a request on `ratchet.training` becomes a registered adapter, or a reason why not."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.infra import clock
from ratchet.schemas.errors import (
    BrokerError,
    DatasetError,
    ModelError,
    RatchetError,
    TrainingCancelled,
    TrainingError,
)
from ratchet.schemas.events import Adapter, Event, Training
from ratchet.schemas.ids import BASE
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.training_policy import TrainingPolicy
from ratchet.schemas.training_pool import ManagedRecipe
from ratchet.trainers import attempting, managed, process, registry
from ratchet.trainers import dataset as datasets
from ratchet.trainers import job as jobs
from ratchet.trainers.bases import FIRST, Base
from ratchet.trainers.cancelling import unless_cancelled
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.evaluation.evaluated import Evaluated
from ratchet.trainers.evaluation.evaluator import Evaluator
from ratchet.trainers.job import Outcome, Plan
from ratchet.trainers.job_events import progressed, told
from ratchet.trainers.rewarding import reward_of
from ratchet.trainers.rules.dataset import Kind, kind_for
from ratchet.trainers.single_flight import single_flight

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.kafka.publisher import Publisher

log = logging.getLogger("ratchet.trainer")
MAX_POLL_INTERVAL_S = 86_400
"""A run may take a day before Kafka thinks its worker dead."""


class Stopped(RatchetError):
    """The worker was stopped in the middle of a job: not done, to be done again by the next one."""


class Worker:
    """Runs training jobs, one at a time for each task of a home.

    Args:
        store: ClickHouse.
        publisher: where the events go.
        home: Ratchet's home.
        tasks: the policies.
        bases: what is trained on, by pool; `FIRST` is the first one.
        build: makes a dataset version of the kind that is asked for, of all feedback that is stored.
        evaluator: asks what was trained before it is registered.
        push: publishes a registered adapter's files before anybody is told of it.
        now: the clock.
        python: interpreter of the training process.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        *,
        home: Path,
        tasks: Mapping[str, TaskPolicy],
        bases: Mapping[str, Base],
        build: Callable[[str, Kind], Dataset],
        evaluator: Evaluator,
        push: Callable[[Adapter], object] = lambda adapter: None,
        now: Callable[[], datetime] = clock.now,
        python: str = sys.executable,
    ) -> None:
        self._store, self._publisher, self._bases = store, publisher, bases
        self._home, self._tasks, self._evaluator = home.resolve(), tasks, evaluator
        self._build, self._push, self._now, self._python = build, push, now, python
        self._running: set[asyncio.Task[Outcome]] = set()
        self._stopping = False

    async def handle(self, event: Event) -> None:
        """Handle one event of `ratchet.training`: train for a request, pass over everything else."""
        if isinstance(event, Training) and event.state == "requested":
            job = asyncio.create_task(self.run(event))
            self._running.add(job)
            try:
                ended = (await asyncio.shield(job)).training
            except asyncio.CancelledError:
                if not self._stopping:
                    job.cancel()
                    raise
                raise Stopped(f"job {event.job_id} was stopped; it is done again") from None
            finally:
                self._running.discard(job)
            log.info("job %s of task %s %s: %s", ended.job_id, ended.task, ended.state, ended.reason or ended.adapter)

    async def stop(self) -> None:
        """End what is running; its requests stay unacknowledged, so the next worker does them again."""
        self._stopping = True
        running = list(self._running)
        for job in running:
            job.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def run(
        self,
        request: Training,
        *,
        dataset: Dataset | None = None,
        on_progress: Callable[[process.Progress], None] | None = None,
    ) -> Outcome:
        """Do one job to its end; a job that ended before is only told again.

        Args:
            request: the `requested` event; ``params`` go over the policy's recipe.
            dataset: the version to train on; None builds one from everything that is stored now.
            on_progress: called with each progress line.

        Returns:
            The events that ended it, already published.

        Raises:
            StoreError: ClickHouse is away: the job is to be tried again.
            BrokerError: Kafka is: likewise.
            ArtifactError: the artifact store is: likewise.
        """
        folder = self._home / "jobs" / request.job_id
        async with single_flight(self._home, request.task, request.job_id) as turn:
            outcome = jobs.read_outcome(folder)
            if outcome is None:
                try:
                    work = self._train(request, folder, dataset, on_progress, turn)
                    outcome = await unless_cancelled(self._store, request, work)
                except TrainingCancelled as error:
                    outcome = Outcome(told(request, "cancelled", self._now(), reason=str(error)), None)
                except (DatasetError, TrainingError, ModelError) as error:
                    outcome = Outcome(told(request, "failed", self._now(), reason=str(error)), None)
                outcome = jobs.remembered(folder, outcome)
            # The adapter first: whoever sees the job finished finds the adapter there.
            if outcome.adapter is not None:
                self._publisher.publish(outcome.adapter)
            self._publisher.publish(outcome.training)
            return outcome

    async def _train(
        self,
        request: Training,
        folder: Path,
        dataset: Dataset | None,
        on_progress: Callable[[process.Progress], None] | None,
        turn: int,
    ) -> Outcome:
        policy = self._tasks.get(request.task, TaskPolicy())
        wanted = {"method": request.method} | request.params
        base = self._base(wanted.get("pool", policy.training.pool))
        if base.provider is None:
            # refused before anything is built for it
            hot_loaded = base.serving is not None and base.serving.replicas is not None
            recipe = jobs.recipe(policy.training, wanted, loads=hot_loaded)
            reward = await asyncio.to_thread(
                reward_of, self._home, self._evaluator.config_dir, request.task, policy, recipe, base.model
            )
        dataset = dataset or jobs.planned_dataset(folder, self._home)
        if dataset is None and (version := wanted.pop("dataset", None)) is not None:
            dataset = await asyncio.to_thread(datasets.find, self._home, str(version))
        if dataset is None:
            dataset = await asyncio.to_thread(self._build, request.task, kind_for(wanted["method"]))
        wanted.pop("dataset", None)
        evaluation = await asyncio.to_thread(self._evaluator.prepare, request.task, policy, base, dataset)

        def on_line(line: process.Progress) -> None:
            try:
                self._publisher.publish(progressed(request, dataset.version, line, self._now()))
            except BrokerError as error:
                # Progress is news, not record: no run ends for it.
                log.warning("progress of job %s was not published: %s", request.job_id, error)
            if on_progress is not None:
                on_progress(line)

        if base.provider is not None:
            planned = await asyncio.to_thread(jobs.plan_managed, folder, dataset, policy.training, wanted)
            result, placed = await self._by_provider(request, folder, planned, base.provider, on_line)
        else:
            assert base.path is not None, "trained here or by a provider"
            base_path = await asyncio.to_thread(base.path)
            planned = await asyncio.to_thread(jobs.plan, folder, dataset, policy.training, wanted, base_path, reward)
            result, placed = await self._here(request, folder, planned, policy.training, on_line, turn)
        # evaluation can take hours and a judge's money: what a killed worker registered is not asked again
        adapter = registry.registered(placed)
        if adapter is None:
            evaluated = await evaluation.run(placed, planned.params, result)
            adapter = self._register(request, planned, placed, result, evaluated, base)
        await asyncio.to_thread(self._push, adapter)
        ended = told(
            request,
            "finished",
            self._now(),
            dataset=dataset.version,
            adapter=adapter.name,
            metrics=jobs.figures(result, adapter.evaluation),
            reason=adapter.reason,
            params=planned.params | ({"max_pairs": planned.max_pairs} if planned.max_pairs else {}),
        )
        return Outcome(ended, adapter)

    def _base(self, pool: object) -> Base:
        base = self._bases.get(str(pool or FIRST))
        if base is None:
            known = ", ".join(repr(name) for name in self._bases if name) or "none"
            raise TrainingError(f"training parameters: pool: {pool!r}; allowed: {known}")
        return base

    def _started(self, request: Training, planned: Plan, which: str = "") -> Training:
        version, params = planned.dataset.version, planned.params
        return told(request, "started", self._now(), dataset=version, reason=which, params=params)

    async def _here(
        self,
        request: Training,
        folder: Path,
        planned: Plan,
        policy: TrainingPolicy,
        on_line: Callable[[process.Progress], None],
        turn: int,
    ) -> tuple[Mapping[str, Any], registry.Placed]:
        def started(which: str) -> None:
            self._publisher.publish(self._started(request, planned, which))

        result = await attempting.run(
            planned.job_file,
            folder,
            policy,
            started=started,
            on_progress=on_line,
            python=self._python,
            inherits=(turn,),
        )
        return result, await asyncio.to_thread(self._place, request, folder, str(result["weights_sha256"]))

    async def _by_provider(
        self,
        request: Training,
        folder: Path,
        planned: Plan,
        provider: Callable[[], managed.Provider],
        on_line: Callable[[process.Progress], None],
    ) -> tuple[Mapping[str, Any], registry.Placed]:
        self._publisher.publish(self._started(request, planned))
        order = managed.Order(
            job_id=request.job_id,
            task=request.task,
            method=planned.params["method"],
            train=planned.dataset.rows("train"),
            holdout=planned.dataset.rows("holdout"),
            recipe=ManagedRecipe.model_validate(planned.params["managed"]),
            seed=planned.params["seed"],
        )
        at = provider()
        try:
            result = await managed.train(at, order, folder, on_line)
        except asyncio.CancelledError:
            if not self._stopping:  # a worker that stops leaves the provider's job to run, and finds it again
                await managed.cancel(at, folder, request.job_id)
            raise
        finally:
            await at.client.close()
        taken = [str(row["name"]) for row in self._store.query("adapter_names", task=request.task)]
        return result, await asyncio.to_thread(
            registry.place_served, self._home, request.task, request.job_id, result["served_as"], taken
        )

    def _place(self, request: Training, folder: Path, sha256: str) -> registry.Placed:
        taken = [str(row["name"]) for row in self._store.query("adapter_names", task=request.task)]
        placed = registry.place(self._home, request.task, request.job_id, folder / "adapter", taken)
        if placed.weights_sha256 != sha256:
            raise TrainingError(f"{placed.folder}: the weights are not those that the run wrote (sha256 differs)")
        return placed

    def _register(
        self,
        request: Training,
        planned: Plan,
        placed: registry.Placed,
        result: Mapping[str, Any],
        evaluated: Evaluated,
        base: Base,
    ) -> Adapter:
        stable = self._store.query("stable_adapter", task=request.task)
        params = planned.params | ({"max_pairs": planned.max_pairs} if planned.max_pairs else {})
        return registry.register(
            placed,
            task=request.task,
            job_id=request.job_id,
            at=self._now(),
            method=planned.params["method"],
            base_model=base.model,
            dataset=planned.dataset.version,
            dataset_sha256=planned.dataset.sha256,
            parents=[row["stable"] for row in stable if row["stable"] != BASE],
            params=params,
            metrics=jobs.figures(result),
            evaluation=evaluated.figures,
            rejected=evaluated.rejected,
        )

"""Training at a provider that speaks OpenAI's fine-tuning API: upload, job, poll, cancel, cost.

The job's folder remembers what the provider was told (``managed.json``), and the provider's job carries ours in its
metadata: after a crash at any point the same job is found again and none is paid for twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_pool import ManagedRecipe
from ratchet.trainers.registry import write_whole
from ratchet.trainers.rules import managed as rules

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.fine_tuning import FineTuningJob

log = logging.getLogger("ratchet.trainer")
STATE = "managed.json"
OURS = "ratchet_job"
"""The provider's job has our job id under this name."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Provider:
    """Where to train.

    Args:
        client: of the provider; closed by its owner.
        model: the base model that it trains.
        usd_per_million: price of a million trained tokens; None: the cost is unknown.
        poll_s: seconds between two looks at the job.
        patience_s: how long a provider that is away is asked again.
    """

    client: AsyncOpenAI
    model: str
    usd_per_million: float | None = None
    poll_s: float = 10.0
    patience_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to train: the rows as the dataset has them, and how."""

    job_id: str
    task: str
    method: str
    train: list[dict[str, Any]]
    holdout: list[dict[str, Any]]
    recipe: ManagedRecipe
    seed: int = 0


async def train(
    provider: Provider, order: Order, folder: Path, on_progress: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Have an order trained, or go on waiting for one that was placed before.

    Stopping the wait (a cancelled coroutine) leaves the provider's job to run: the next call finds it.

    Args:
        provider: where.
        order: what.
        folder: the job's folder.
        on_progress: called with each new progress line, in order.

    Returns:
        ``served_as`` (the provider's id of the model), ``seconds``, ``n`` rows, ``metrics``, and where they are known
        ``trained_tokens`` and ``cost_usd``.

    Raises:
        TrainingError: the provider refused, failed or cancelled the job, or was away for too long; in its own words.
    """
    desk = _Desk(provider, folder)
    job = await desk.find(order.job_id)
    if job is None:
        job = await desk.place(order)
    told: set[str] = set()
    history: list[dict[str, Any]] = []
    while True:
        ended = job.status in ENDED  # before the events are read: the last ones come with the end
        for line in await desk.news(job.id, told):
            history.append(line)
            on_progress(line)
        if ended:
            break
        await asyncio.sleep(provider.poll_s)
        job = await desk.ask(partial(provider.client.fine_tuning.jobs.retrieve, job.id))
    await desk.tidy()
    if job.status == "failed":
        why = job.error.message if job.error and job.error.message else "it gave no reason"
        raise TrainingError(f"the provider's job {job.id} failed: {why}")
    if job.status == "cancelled":
        raise TrainingError(f"the provider's job {job.id} was cancelled")
    if not job.fine_tuned_model:
        raise TrainingError(f"the provider's job {job.id} succeeded and names no model")
    return _result(provider, order, job, history)


def _result(provider: Provider, order: Order, job: FineTuningJob, history: list[dict[str, Any]]) -> dict[str, Any]:
    losses = [line["loss"] for line in history if "loss" in line]
    metrics = {"loss_first": losses[0], "loss_last": losses[-1]} if losses else {}
    result: dict[str, Any] = {
        "served_as": job.fine_tuned_model,
        "provider_job": job.id,
        "seconds": float((job.finished_at or job.created_at) - job.created_at),
        "n": len(order.train),
        "steps": history[-1]["steps"] if history else 0,
        "metrics": metrics,
    }
    if job.trained_tokens is not None:
        result["trained_tokens"] = job.trained_tokens
    cost = rules.cost_usd(job.trained_tokens, provider.usd_per_million)
    return result if cost is None else result | {"cost_usd": cost}


async def cancel(provider: Provider, folder: Path, job_id: str) -> bool:
    """End our job at the provider; returns whether there was one that had not ended.

    Raises:
        TrainingError: the provider refused, or was away for too long.
    """
    desk = _Desk(provider, folder)
    job = await desk.find(job_id)
    if job is None or job.status in ENDED:
        return False
    await desk.ask(partial(provider.client.fine_tuning.jobs.cancel, job.id))
    return True


class _Desk:
    """One job's business with the provider: patient where it is away, and remembering what it was told."""

    def __init__(self, provider: Provider, folder: Path) -> None:
        self._provider = provider
        self._client = provider.client
        self._file = folder / STATE

    async def ask(self, call: Callable[[], Any]) -> Any:
        """Make a call; a provider that is away, busy or broken is asked again for as long as our patience lasts."""
        from openai import APIConnectionError, APIStatusError, OpenAIError

        wait_s, waited = min(1.0, self._provider.poll_s), 0.0
        while True:
            try:
                return await call()
            except OpenAIError as error:
                status = error.status_code if isinstance(error, APIStatusError) else 0
                passing = isinstance(error, APIConnectionError) or status in (408, 409, 429) or status >= 500
                if not passing or waited >= self._provider.patience_s:
                    raise TrainingError(f"the provider: {type(error).__name__}: {error}"[:1000]) from error
                log.warning("the provider does not answer, asking again: %s", error)
            await asyncio.sleep(wait_s)
            waited, wait_s = waited + wait_s, min(2 * wait_s, 60.0)

    async def find(self, job_id: str) -> FineTuningJob | None:
        """The provider's job for ours: the one in our notes, or one that carries our id; None where none was placed."""
        jobs = self._client.fine_tuning.jobs
        if known := self._notes().get("job"):
            found: FineTuningJob = await self.ask(partial(jobs.retrieve, known))
            return found
        if not self._notes():
            return None
        # the notes say that files were sent: a crash may have lost the answer to the order itself
        placed: FineTuningJob | None = await self.ask(partial(self._placed, job_id))
        return placed

    async def _placed(self, job_id: str) -> FineTuningJob | None:
        page = await self._client.fine_tuning.jobs.list(metadata={OURS: job_id}, limit=100)
        mine = next((job for job in page.data if (job.metadata or {}).get(OURS) == job_id), None)
        if mine is not None:
            self._note(job=mine.id)
        return mine

    async def place(self, order: Order) -> FineTuningJob:
        """Send the files and place the order."""
        if len(order.train) < rules.MIN_EXAMPLES:
            raise TrainingError(f"{len(order.train)} rows to train on; a provider needs at least {rules.MIN_EXAMPLES}")
        files = {"train": rules.lines(order.method, order.train)}
        if len(order.holdout) >= rules.MIN_EXAMPLES:
            files["holdout"] = rules.lines(order.method, order.holdout)
        sent = dict(self._notes().get("files", {}))
        for side, raw in files.items():
            if side not in sent:
                sent[side] = await self.ask(partial(self._send, f"ratchet-{order.job_id}-{side}.jsonl", raw))
                self._note(files=sent)
        wanted: dict[str, Any] = {
            "model": self._provider.model,
            "training_file": sent["train"],
            "method": rules.method_of(order.method, order.recipe),
            "seed": order.seed,
            "suffix": order.recipe.suffix or order.task[:64],
            "metadata": {OURS: order.job_id},
        }
        if "holdout" in sent:
            wanted["validation_file"] = sent["holdout"]

        async def once() -> FineTuningJob:
            # the client's own second try could order twice: each try looks first whether the last one came through
            once_only = self._client.with_options(max_retries=0)
            return await self._placed(order.job_id) or await once_only.fine_tuning.jobs.create(**wanted)

        job: FineTuningJob = await self.ask(once)
        self._note(job=job.id)
        return job

    async def _send(self, name: str, raw: bytes) -> str:
        """Upload a file, unless an earlier try did; returns its id there."""
        async for file in self._client.files.list(purpose="fine-tune"):
            if file.filename == name and file.bytes == len(raw):
                return file.id
        return (await self._client.files.create(file=(name, raw), purpose="fine-tune")).id

    async def news(self, job: str, told: set[str]) -> list[dict[str, Any]]:
        """Progress lines of the events that were not told yet, the oldest first."""

        async def read() -> list[Any]:
            events = []
            async for event in self._client.fine_tuning.jobs.list_events(job, limit=100):
                if event.id in told:
                    break  # the newest come first
                events.append(event)
            return events

        fresh = (await self.ask(read))[::-1]
        told.update(event.id for event in fresh)
        lines = (rules.progress(event.model_dump()) for event in fresh)
        return [line for line in lines if line is not None]

    async def tidy(self) -> None:
        """Delete the uploaded rows: people's words stay at the provider no longer than they are needed."""
        from openai import NotFoundError

        for file in self._notes().get("files", {}).values():
            try:
                await self.ask(partial(self._client.files.delete, file))
            except TrainingError as error:
                if not isinstance(error.__cause__, NotFoundError):
                    raise

    def _notes(self) -> dict[str, Any]:
        try:
            notes = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, orjson.JSONDecodeError) as error:
            raise TrainingError(f"{self._file}: cannot be read ({error})") from error
        return notes if isinstance(notes, dict) else {}

    def _note(self, **more: Any) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, orjson.dumps(self._notes() | more))
        except OSError as error:
            raise TrainingError(f"{self._file}: {error.strerror}: the order cannot be remembered") from error

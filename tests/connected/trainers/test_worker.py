"""The training worker over ClickHouse's engine: a request becomes a registered adapter, once, or a reason."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from provider import BASE as PROVIDERS_BASE
from provider import Provider as Server
from training_place import Place, Replicas, chat, children

from ratchet.infra.artifacts import ArtifactStore
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import ArtifactError
from ratchet.schemas.events import Adapter, Training
from ratchet.trainers import dataset as datasets
from ratchet.trainers import managed, registry
from ratchet.trainers.adapters.shelf import Shelf
from ratchet.trainers.bases import Base, Serving
from ratchet.trainers.worker import Stopped

pytestmark = [pytest.mark.connected, pytest.mark.slow]


async def test_request_becomes_one_adapter_whatever_crashes(place: Place) -> None:
    """A real run is told, placed, loaded, evaluated and registered; every crash after it repeats nothing."""
    place.pairs(32)
    request = place.request(epochs=1.0)
    await place.worker(floor=0.2).handle(request)
    states = place.states()
    assert (states[0], states[-2:]) == ("started", ["adapter", "finished"])
    assert set(states[1:-2]) == {"progress"}
    adapter, finished = place.publisher.events[-2:]
    assert isinstance(adapter, Adapter)
    assert isinstance(finished, Training)
    assert (adapter.status, finished.adapter, finished.dataset) == ("registered", adapter.name, adapter.dataset)
    assert place.replicas.loaded == {adapter.name: adapter.path}
    assert registry.read(Path(adapter.path)) == adapter
    assert registry.file_sha256(Path(adapter.path) / registry.WEIGHTS) == adapter.weights_sha256
    completion: Any = adapter.evaluation["completion"]
    assert (completion["n"], completion["k"]) == (10, 5)
    accuracy: Any = adapter.evaluation["preference_accuracy"]
    assert accuracy["before"]["n"] == accuracy["after"]["n"] == 8
    assert finished.metrics["loss_last"] < finished.metrics["loss_first"]
    progress = next(event for event in place.publisher.events if isinstance(event, Training) and event.step)
    assert {"loss", "reward_accuracy", "eta_s"} <= progress.metrics.keys()

    # Redelivered after the end: the same events again. The interpreter is not there, so nothing can train.
    told, place.publisher = place.publisher.events[-2:], MemoryPublisher()
    await place.worker(python="/nonexistent").handle(request)
    assert place.publisher.events == told
    # Killed after the run and before the end was noted: the result is used, under the same name; nothing is loaded
    # or asked anew for what is registered already.
    (place.home / "jobs" / request.job_id / "outcome.json").unlink()
    place.publisher, place.replicas.away = MemoryPublisher(), True
    # With the artifact store away nobody is told of the adapter, and the request is handled again.
    (place.home / "a-file").write_text("")
    place.artifacts = str(place.home / "a-file" / "store")
    with pytest.raises(ArtifactError, match="a-file/store: "):
        await place.worker(python="/nonexistent").handle(request)
    assert place.publisher.events == []
    place.artifacts = str(place.home / "store")
    await place.worker(python="/nonexistent").handle(request)
    place.replicas.away = False
    assert Shelf(place.home, ArtifactStore(place.artifacts)).published(adapter.name) == adapter
    assert place.publisher.events[0] == adapter
    assert place.states() == ["adapter", "finished"]
    assert len([path for path in (place.home / "adapters").iterdir() if "@" in path.name]) == 1

    # The same run under a floor that it misses is kept, and rejected with the figures.
    other = place.request()
    shutil.copytree(place.home / "jobs" / request.job_id, place.home / "jobs" / other.job_id)
    (place.home / "jobs" / other.job_id / "outcome.json").unlink()
    ended = await place.worker(floor=0.9, python="/nonexistent").run(other)
    assert ended.adapter is not None
    assert ended.adapter.status == "rejected"
    assert ended.adapter.reason.startswith("completion: fail: 0.5 of n = 10, 90% interval 0.26")
    (gate,) = ended.adapter.evaluation["gates"]
    assert (gate["metric"], gate["verdict"], gate["bound"]) == ("completion", "fail", 0.9)
    assert ended.adapter.name.startswith(f"{place.task}@v2-")

    # Changed on the disk between two attempts: neither loaded nor registered.
    weights = place.home / "adapters" / ended.adapter.name / registry.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    (weights.parent / registry.MANIFEST).unlink()
    (place.home / "jobs" / other.job_id / "outcome.json").unlink()
    refused = await place.worker(python="/nonexistent").run(other)
    assert (refused.adapter, refused.training.state) == (None, "failed")
    assert f"{weights} was changed since it was registered" in refused.training.reason
    weights.write_bytes(whole)

    # vLLM away for longer than the patience: the job fails and says so; nothing claims an adapter.
    third = place.request()
    shutil.copytree(place.home / "jobs" / request.job_id, place.home / "jobs" / third.job_id)
    (place.home / "jobs" / third.job_id / "outcome.json").unlink()
    place.replicas.away = True
    ended = await place.worker(python="/nonexistent").run(third)
    assert (ended.adapter, ended.training.state) == (None, "failed")
    assert "trained but was not loaded: vLLM at http://replica is away" in ended.training.reason


@pytest.mark.parametrize(
    ("pairs", "params", "reason"),
    [
        (0, {}, "no pair to train on"),
        (6, {}, "gives 4 rows; training needs at least 8"),
        (32, {"max_pairs": 3}, "gives 3 rows"),
        (32, {"lora_rank": 3}, "lora_rank"),
        (32, {"method": "ppo"}, "method"),
        (32, {"adapter_type": "ia3"}, "'ia3' is not loaded by vLLM, which takes 'lora'"),
    ],
)
async def test_impossible_job_fails_with_its_reason(
    place: Place, pairs: int, params: dict[str, Any], reason: str
) -> None:
    """What cannot be trained ends as `failed` with one sentence, and is not tried for ever."""
    if pairs:
        place.pairs(pairs)
    await place.worker(python="/nonexistent").handle(place.request(**params))
    (failed,) = place.publisher.events
    assert isinstance(failed, Training)
    assert failed.state == "failed"
    assert reason in failed.reason


async def test_the_request_s_method_is_trained_and_registered(place: Place) -> None:
    """A request for supervised training builds a dataset of its kind, and the manifest says how it was trained."""
    place.pairs(32)
    ended = await place.worker().run(place.request().model_copy(update={"method": "sft"}))
    assert ended.adapter is not None, ended.training.reason
    assert (ended.adapter.method, ended.adapter.params["method"]) == ("sft", "sft")
    assert datasets.find(place.home, ended.adapter.dataset).kind == "sft"
    assert 1 < ended.adapter.metrics["perplexity_after"] < ended.adapter.metrics["perplexity_before"]


async def test_run_that_dies_is_told_with_its_last_words(place: Place, tmp_path: Path) -> None:
    """A training process that ends badly fails the job with its status and the last line it wrote."""
    place.pairs(32)
    python = tmp_path / "python"
    # the guard runs as ever; the trainer is an interpreter that ends at once
    python.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exec {sys.executable} "$@"\necho "no space left" >&2\nexit 7\n')
    python.chmod(0o755)
    ended = await place.worker(python=str(python)).run(place.request())
    assert ended.training.state == "failed"
    assert "ended with status 7: no space left" in ended.training.reason


async def test_stopped_worker_ends_its_child_and_leaves_the_job_undone(place: Place) -> None:
    """Stopping in mid-run raises, so that the request stays unacknowledged; the training process is gone."""
    place.pairs(32)
    request, worker = place.request(epochs=500.0), place.worker()
    before = children()
    job = asyncio.create_task(worker.handle(request))
    folder = place.home / "jobs" / request.job_id
    async with asyncio.timeout(60):
        while len(children() - before) < 2:  # noqa: ASYNC110 - the run and its guard appear in the process table
            await asyncio.sleep(0.05)
    await worker.stop()
    with pytest.raises(Stopped):
        await job
    assert not children() - before
    assert not (folder / "outcome.json").exists()
    assert place.states() == ["started"]


async def test_a_providers_model_enters_the_same_registry(place: Place) -> None:
    """A provider trains it: uploaded, asked by its own name there, registered under ours with its cost."""
    server = Server()
    try:

        def client() -> AsyncOpenAI:
            return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0)

        far = managed.Provider(client(), PROVIDERS_BASE, usd_per_million=25.0, poll_s=0.01)
        place.more["far"] = Base(PROVIDERS_BASE, None, lambda: far, Serving(None, chat))
        place.pairs(20)
        lines: list[dict[str, Any]] = []
        request = place.request(pool="far", managed={"n_epochs": 1})
        outcome = await place.worker().run(request, on_progress=lines.append)
        adapter = outcome.adapter
        assert adapter is not None, outcome.training.reason
        (job,) = server.state.jobs.values()
        assert (adapter.served_as, adapter.base_model) == (job["fine_tuned_model"], PROVIDERS_BASE)
        assert adapter.name == f"{place.task}@v1-{hashlib.sha256(adapter.served_as.encode()).hexdigest()[:8]}"
        assert adapter.evaluation["completion"]["k"] == 5
        assert outcome.training.metrics["cost_usd"] > 0
        assert [line["step"] for line in lines] == [2, 3, 4]
        assert place.replicas.loaded == {}, "nothing is loaded here"
        again = await place.worker().run(request)
        assert again == outcome
        assert len(server.state.jobs) == 1
    finally:
        server.stop()


async def test_another_pools_base_model_is_trained_on(place: Place) -> None:
    """A request that names a pool and a dataset, as an upgrade does, trains that there; an unknown pool is named."""
    place.pairs(20)
    first = await place.worker().run(place.request())
    assert first.adapter is not None, first.training.reason
    there = Replicas()
    place.more["next"] = Base("tiny-next", lambda: place.model, serving=Serving(there, chat))
    params = first.adapter.params | {"pool": "next", "dataset": first.adapter.dataset}
    second = await place.worker().run(place.request(**params))
    assert second.adapter is not None, second.training.reason
    assert (second.adapter.base_model, second.adapter.dataset) == ("tiny-next", first.adapter.dataset)
    assert list(there.loaded) == [second.adapter.name]
    wrong = await place.worker().run(place.request(pool="nowhere"))
    assert wrong.training.state == "failed"
    assert "pool: 'nowhere'; allowed: 'next'" in wrong.training.reason

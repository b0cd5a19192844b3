"""What befalls a training job from outside: interruptions, a person who cancels, damage, a disk that takes no more."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import orjson
import pytest
from openai import AsyncOpenAI
from parts import wait_for
from provider import BASE as PROVIDERS_BASE
from provider import Provider as Server
from training_place import Place, chat, children

from ratchet.infra import clock
from ratchet.schemas.errors import TrainingError
from ratchet.schemas.events import Training
from ratchet.schemas.rows import row
from ratchet.schemas.training_policy import TrainingPolicy
from ratchet.trainers import attempting, managed, registry
from ratchet.trainers.bases import Base, Serving

pytestmark = [pytest.mark.connected, pytest.mark.slow]


def interpreter(folder: Path, deaths: int) -> str:
    """An interpreter whose first trainers are killed at once; the guard runs as ever."""
    python, count = folder / "python", folder / "deaths"
    count.write_bytes(b"")
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -I ] && exec {sys.executable} "$@"\n'
        f'printf x >> {count}\n[ $(wc -c < {count}) -le {deaths} ] && kill -9 $$\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    return str(python)


def cancelled(place: Place, request: Training) -> None:
    """Store a person's word, as ingest does."""
    word = {"id": clock.new_id(), "at": clock.now(), "state": "cancelled", "reason": "cancelled by ada: too dear"}
    found = row(request.model_copy(update=word))
    assert found is not None
    table, stored = found
    place.store.insert_rows(table, [stored])


async def test_an_interrupted_run_is_started_again(place: Place, tmp_path: Path) -> None:
    """A trainer that is killed from outside is started again, and each start is told; the job ends with its adapter."""
    place.pairs(20)
    worker = place.worker(python=interpreter(tmp_path, deaths=1))
    outcome = await worker.run(place.request())
    assert outcome.adapter is not None, outcome.training.reason
    starts = [event for event in place.publisher.events if isinstance(event, Training) and event.state == "started"]
    assert [event.reason for event in starts] == ["", "attempt 2 of 3"]
    assert len({event.id for event in starts}) == 2


async def test_what_always_dies_is_given_up(place: Place, tmp_path: Path) -> None:
    """After so many starts that got nowhere the job fails and says so, across workers that were killed with it."""
    place.pairs(20)
    request, folder = place.request(), place.home / "jobs"
    worker = place.worker(python=interpreter(tmp_path, deaths=99), max_attempts=3)
    (folder / request.job_id).mkdir(parents=True)
    # an earlier worker was ended together with the first start
    (folder / request.job_id / attempting.ATTEMPTS_FILE).write_bytes(orjson.dumps({"n": 1, "step": 0}))
    failed = (await worker.run(request)).training
    assert failed.state == "failed"
    assert "started 3 times without getting further, which is the task's max_attempts" in failed.reason
    assert "was killed by SIGKILL (out of memory?)" in failed.reason
    assert (tmp_path / "deaths").stat().st_size == 2


async def test_a_person_ends_a_run(place: Place) -> None:
    """A cancelled job's training process ends, its outcome is the person's word, and nothing is registered."""
    place.pairs(32)
    request, before = place.request(epochs=500.0), children()
    job = asyncio.create_task(place.worker().run(request))
    async with asyncio.timeout(60):
        while len(children() - before) < 2:  # noqa: ASYNC110 - the run and its guard appear in the process table
            await asyncio.sleep(0.05)
    cancelled(place, request)
    async with asyncio.timeout(30):
        outcome = await job
    assert (outcome.training.state, outcome.training.reason) == ("cancelled", "cancelled by ada: too dear")
    assert outcome.adapter is None
    assert not children() - before
    assert place.states()[-1] == "cancelled"


async def test_a_person_ends_a_provider_s_job(place: Place) -> None:
    """A cancelled job is cancelled at the provider too, where it costs money."""
    server = Server()
    try:
        client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0)
        far = managed.Provider(client, PROVIDERS_BASE, poll_s=60.0)
        place.more["far"] = Base(PROVIDERS_BASE, None, lambda: far, Serving(None, chat))
        place.pairs(20)
        request = place.request(pool="far")
        job = asyncio.create_task(place.worker().run(request))
        await asyncio.to_thread(wait_for, lambda: bool(server.state.jobs))
        cancelled(place, request)
        outcome = await job
        assert (outcome.training.state, outcome.adapter) == ("cancelled", None)
        assert [one["status"] for one in server.state.jobs.values()] == ["cancelled"]
    finally:
        server.stop()


async def test_a_job_that_was_cancelled_while_it_waited_never_begins(place: Place) -> None:
    """Nothing is built or started for it, however often its request is delivered."""
    place.pairs(32)
    request = place.request()
    cancelled(place, request)
    for _ in range(2):
        outcome = await place.worker(python="/nonexistent").run(request)
        assert (outcome.training.state, outcome.adapter) == ("cancelled", None)
    assert place.states() == ["cancelled", "cancelled"]
    assert len({event.id for event in place.publisher.events}) == 1


def test_a_torn_result_is_not_taken(tmp_path: Path) -> None:
    """Weights that are not those that the run wrote, or that are gone, are no result: the job is trained again."""
    weights = tmp_path / "adapter" / registry.WEIGHTS
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    result = {"weights_sha256": registry.file_sha256(weights)}
    (tmp_path / "result.json").write_bytes(orjson.dumps(result))
    assert attempting.finished(tmp_path) == result
    weights.write_bytes(b"weight")
    assert attempting.finished(tmp_path) is None
    weights.unlink()
    assert attempting.finished(tmp_path) is None


async def test_an_outcome_that_cannot_be_remembered_is_told_all_the_same(place: Place) -> None:
    """A full disk at the end of a job ends it with a note, instead of having it repeated for ever."""
    place.pairs(4)
    request = place.request()
    (place.home / "jobs" / request.job_id / "outcome.json").mkdir(parents=True)  # nothing can be put in its place
    failed = (await place.worker(python="/nonexistent").run(request)).training
    assert failed.state == "failed"
    assert "training needs at least 8" in failed.reason
    assert "how it ended is not remembered here" in failed.reason


async def test_a_run_that_cannot_be_started_fails(place: Place, tmp_path: Path) -> None:
    """An interpreter that is not there fails the job with the system's words."""
    place.pairs(20)
    outcome = await place.worker(python="/nonexistent/python").run(place.request())
    assert outcome.training.state == "failed"
    assert "/nonexistent/python: No such file or directory: the run cannot be started" in outcome.training.reason


def test_a_count_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Damage to the count of starts is an error that says what to do, not a count of zero."""
    (tmp_path / attempting.ATTEMPTS_FILE).write_bytes(b'{"starts": 1}')
    run = attempting.run(tmp_path, tmp_path, TrainingPolicy(), started=print, on_progress=print, python="", inherits=())
    with pytest.raises(TrainingError, match="remove it to start again from one"):
        asyncio.run(run)

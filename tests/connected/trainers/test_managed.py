"""Training at a provider: the real client against a server that speaks OpenAI's fine-tuning API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from parts import wait_for
from provider import BASE
from provider import Provider as Server

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_pool import ManagedRecipe
from ratchet.trainers.managed import Order, Provider, cancel, train

PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Order {n}?"}],
        "chosen": [{"role": "assistant", "content": f'{{"order": {n}}}'}],
        "rejected": [{"role": "assistant", "content": "I cannot say."}],
        "pair_id": f"p{n}",
        "weight": 1.0,
    }
    for n in range(12)
]
ORDER = Order("job-1", "support", "dpo", PAIRS, PAIRS[:10], ManagedRecipe(n_epochs=2, beta=0.2), seed=7)


@pytest.fixture
def server() -> Iterator[Server]:
    """The provider."""
    running = Server()
    yield running
    running.stop()


def provider(server: Server, **more: Any) -> Provider:
    """Our side of it; its client tries once, so that every second try is our own."""
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=more.pop("key", "sk-test"), max_retries=0)
    return Provider(client, BASE, **{"usd_per_million": 25.0, "poll_s": 0.01, "patience_s": 5.0} | more)


async def run(server: Server, folder: Path, order: Order = ORDER, **more: Any) -> tuple[dict[str, Any], list[Any]]:
    """Train, and what was told meanwhile."""
    lines: list[dict[str, Any]] = []
    return await train(provider(server, **more), order, folder, lines.append), lines


async def test_an_order_becomes_a_model(server: Server, tmp_path: Path) -> None:
    """Files, order, progress in its order, the model's id, the cost of the trained tokens; the files are deleted."""
    result, lines = await run(server, tmp_path)
    (job,) = server.state.jobs.values()
    assert result["served_as"] == job["fine_tuned_model"] == f"ft:{BASE}:org:support:{job['id']}"
    assert result["cost_usd"] == pytest.approx(job["trained_tokens"] * 25e-6)
    assert (result["n"], result["seconds"], result["steps"]) == (12, 60.0, 4)
    assert [line["step"] for line in lines] == [2, 3, 4]
    assert lines[0] == {"step": 2, "steps": 4, "loss": 0.5, "eval_loss": 1.0}
    assert result["metrics"] == {"loss_first": 0.5, "loss_last": 0.25}
    assert job["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.2}}}
    assert (job["seed"], job["metadata"]) == (7, {"ratchet_job": "job-1"})
    assert (server.state.files, len(server.state.deleted)) == ({}, 2)


@pytest.mark.parametrize("rows", [PAIRS, [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]])
async def test_sft_takes_completions_and_chosen_answers(
    server: Server, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    """Either kind of row becomes the same supervised example, and beta, which it does not know, is not sent."""
    order = Order("job-2", "support", "sft", rows, [], ManagedRecipe(beta=0.2, batch_size=4))
    result, _ = await run(server, tmp_path, order)
    assert result["served_as"]
    (job,) = server.state.jobs.values()
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 4}}}
    assert "validation_file" not in job


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_an_answer_that_is_lost_orders_nothing_twice(server: Server, tmp_path: Path, lost: int) -> None:
    """Whichever answer does not arrive (of an upload or of the order itself): each thing is sent once."""
    server.state.lose = lost
    result, _ = await run(server, tmp_path)
    assert result["served_as"]
    assert (len(server.state.jobs), server.state.uploads) == (1, 2)


async def test_a_wait_that_is_cut_short_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    """A worker that ends leaves the job to run; the next one waits for the same, and hears all of its progress."""
    waiting = asyncio.create_task(train(provider(server, poll_s=30.0), ORDER, tmp_path, lambda _: None))
    await asyncio.to_thread(wait_for, lambda: bool(server.state.jobs))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert next(iter(server.state.jobs.values()))["status"] != "cancelled"
    result, lines = await run(server, tmp_path)
    assert result["served_as"]
    assert (len(server.state.jobs), server.state.uploads, len(lines)) == (1, 2, 3)


async def test_a_lost_note_of_the_order_finds_it_by_our_id(server: Server, tmp_path: Path) -> None:
    """A crash between the order and its note: the provider's job carries our id."""
    await run(server, tmp_path)
    (tmp_path / "managed.json").write_text('{"files": {}}')
    result, _ = await run(server, tmp_path)
    assert (result["served_as"], len(server.state.jobs)) == (
        next(iter(server.state.jobs.values()))["fine_tuned_model"],
        1,
    )


async def test_a_failed_job_says_why(server: Server, tmp_path: Path) -> None:
    """In the provider's words, and nobody's answers stay there."""
    server.state.fail = "Training file contains content that was blocked by moderation"
    with pytest.raises(TrainingError, match=r"job ftjob-\d+ failed: Training file contains content .* moderation"):
        await run(server, tmp_path)
    assert server.state.files == {}


async def test_cancelling_ends_the_job_there(server: Server, tmp_path: Path) -> None:
    """Once; a job that has ended, or was never placed, is none to cancel."""
    assert not await cancel(provider(server), tmp_path, "job-1")
    waiting = asyncio.create_task(run(server, tmp_path, poll_s=1.0))
    await asyncio.to_thread(wait_for, lambda: bool(server.state.jobs))
    assert await cancel(provider(server), tmp_path, "job-1")
    with pytest.raises(TrainingError, match=r"was cancelled"):
        await waiting
    assert not await cancel(provider(server), tmp_path, "job-1")


async def test_a_provider_that_is_busy_is_asked_again(server: Server, tmp_path: Path) -> None:
    """429 and 500 pass; a refusal and a wrong key do not, and are told without the key."""
    server.state.refuse = [429, 500, 503]
    assert (await run(server, tmp_path))[0]["served_as"]
    server.state.refuse = [403]
    with pytest.raises(TrainingError, match=r"PermissionDeniedError: .*refused with 403"):
        await run(server, tmp_path / "again")
    with pytest.raises(TrainingError, match="AuthenticationError") as said:
        await run(server, tmp_path / "wrong", key="sk-wrong-key")
    assert "sk-wrong-key" not in str(said.value)


async def test_what_a_provider_would_refuse_is_refused_before_the_upload(server: Server, tmp_path: Path) -> None:
    """Too few rows, a method that it does not know, rows of another kind."""
    few = Order("a", "support", "dpo", PAIRS[:9], [], ManagedRecipe())
    with pytest.raises(TrainingError, match="9 rows to train on; a provider needs at least 10"):
        await run(server, tmp_path / "a", few)
    with pytest.raises(TrainingError, match="method 'kto': a provider trains by sft and dpo"):
        await run(server, tmp_path / "b", Order("b", "support", "kto", PAIRS, [], ManagedRecipe()))
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
    with pytest.raises(TrainingError, match="row 1 of the dataset is none for dpo: KeyError"):
        await run(server, tmp_path / "c", Order("c", "support", "dpo", rows, [], ManagedRecipe()))
    assert server.state.uploads == 0

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from ratchet.consumers.pairs import MOST_WAITING, Pairs, derive_all, to_vote
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.schemas.events import Event, Feedback, Inference, Request, Response
from ratchet.schemas.ids import uuid7
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row

START_MS = 1_790_000_000_000
BEFORE = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.fixture
def store(clickhouse: str) -> Iterator[Store]:
    """A migrated store."""
    with connect(clickhouse) as opened:
        migrate(opened)
        yield opened


@pytest.fixture
def task() -> str:
    """A task that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


def write(store: Store, *events: Event) -> None:
    """Store events as ingest does."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found = row(event)
        assert found is not None
        tables.setdefault(found[0], []).append(found[1])
    for table, rows in tables.items():
        store.insert_rows(table, rows)


def uid(n: int) -> str:
    """A fresh UUIDv7."""
    return uuid7(START_MS + n, uuid.uuid4().bytes)


def inference(task: str, n: int, content: str, prompt: str = "p", conversation: str | None = None) -> Inference:
    """A production answer, n seconds after the start."""
    return Inference(
        id=uid(n * 1000),
        at=f"2026-10-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z",
        task=task,
        conversation_id=conversation,
        adapter="base",
        base_model="tiny",
        request=Request(messages=[{"role": "user", "content": prompt}]),
        response=Response(content=content),
        status="ok",
        latency_ms=1,
        source="http",
        stage="stable",
    )


def feedback(task: str, n: int, kind: str, on: str, value: object, **more: Any) -> Feedback:
    """What a user says, n seconds after the first hour."""
    fields = {"user": f"u{n}", "source": "http"} | more
    at = f"2026-10-02T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z"
    return Feedback(id=uid(n * 1000), at=at, task=task, kind=kind, inference_id=on, value=value, **fields)  # type: ignore[arg-type]


def stored_pairs(store: Store, task: str) -> list[dict[str, Any]]:
    """All rows of a task, whole."""
    sql = "SELECT * FROM ratchet.pairs WHERE task = {task:String} ORDER BY pair_id"
    return store.query_sql(sql, {"task": task})


async def say(pairs: Pairs, *events: Event) -> None:
    """Hand over feedback and derive what it touches."""
    for event in events:
        await pairs.handle(event)
    await pairs.flush()


def random_loop(task: str, order: random.Random) -> tuple[list[Inference], list[Feedback]]:
    """A small random history: several prompts and conversations, users who disagree and some who vote a lot."""
    answers = [
        inference(task, n, order.choice("abc"), order.choice(["p", "q"]), order.choice([None, "c1", "c2", "c3"]))
        for n in range(10)
    ]
    said: list[Feedback] = []
    for _ in range(16):
        one, other = order.sample(answers, 2)
        user = order.choice(["ann", "bob", "eve", None])
        kind = order.choice(["thumb", "correction", "preference", "outcome"])
        value: object = {"thumb": order.random() < 0.5, "correction": order.choice(["good", "a"])}.get(kind, True)
        more: dict[str, Any] = {"user": user}
        if kind == "preference":
            value, more["compared_with"] = order.choice(["this", "other", "tie"]), other.id
        # the times are shuffled against the order of arrival
        said.append(feedback(task, order.randrange(1_000), kind, one.id, value, **more))
    return answers, said


@pytest.mark.parametrize("seed", range(2))
async def test_event_by_event_gives_the_rows_of_the_bulk_path(store: Store, task: str, seed: int) -> None:
    """Whatever the order of arrival, redeliveries included, handling each event ends in the rows of deriving all."""
    order = random.Random(seed)
    answers, said = random_loop(task, order)
    policy = TaskPolicy(pairing=PairingPolicy(holdout=0.4, max_pairs_per_user=3))
    pairs = Pairs(store, {task: policy}, patience_s=0)
    pairs.stale.clear()
    late = answers[:2]
    write(store, *answers[2:])
    for number, event in enumerate(said):
        write(store, event)
        if number == 8:
            write(store, *late)
        await say(pairs, event)
        if number % 5 == 0:
            await say(pairs, order.choice(said[: number + 1]))
    # what was said before its inference arrived
    await pairs.catch_up(task, BEFORE)
    one_by_one = stored_pairs(store, task)
    store.command(f"DELETE FROM ratchet.pairs_log WHERE task = '{task}'")
    counts = derive_all(store, task, policy.pairing)
    assert stored_pairs(store, task) == one_by_one
    assert counts.written == len(one_by_one) > 0
    assert derive_all(store, task, policy.pairing).written == 0


@pytest.mark.parametrize("seed", range(10, 12))
async def test_without_late_answers_no_sweep_is_needed(store: Store, task: str, seed: int) -> None:
    """With the answers stored first, events alone give the bulk path's rows: a sweep finds nothing to write."""
    order = random.Random(seed)
    answers, said = random_loop(task, order)
    policy = TaskPolicy(pairing=PairingPolicy(holdout=0.4, max_pairs_per_user=3))
    pairs = Pairs(store, {task: policy}, patience_s=0)
    pairs.stale.clear()
    write(store, *answers)
    for event in said:
        write(store, event)
        await say(pairs, event)
    assert pairs.stale == set()
    assert (await pairs.sweep(task)).written == 0


async def test_later_votes_replace_the_row(store: Store, task: str) -> None:
    """A pair's row follows the votes: built, tied, turned round; always one row."""
    one, other = inference(task, 1, "a"), inference(task, 2, "b")
    write(store, one, other)
    pairs = Pairs(store, {task: TaskPolicy(pairing=PairingPolicy(holdout=0))}, patience_s=0)
    states = []
    for n, value in enumerate(["this", "other", "other"]):
        event = feedback(task, n, "preference", one.id, value, compared_with=other.id)
        write(store, event)
        await say(pairs, event)
        (pair,) = stored_pairs(store, task)
        states.append((pair["status"], pair["reason"], pair["votes"], '"b"' in pair["chosen"]))
    assert states == [("built", "", 1, False), ("dropped", "tie", 2, False), ("built", "", 3, True)]


@pytest.mark.parametrize("kind", ["correction", "thumb", "preference"])
async def test_feedback_may_come_long_before_its_inference(store: Store, task: str, kind: str) -> None:
    """Feedback whose inference is not stored is dropped with the reason, and built whenever the inference arrives."""
    answer, other = inference(task, 1, "bad"), inference(task, 2, "good")
    more = {"compared_with": other.id} if kind == "preference" else {}
    value: object = {"correction": "good", "thumb": False, "preference": "other"}[kind]
    event = feedback(task, 1, kind, answer.id, value, **more)
    upvote = feedback(task, 2, "thumb", other.id, True)
    considered: list[str] = []

    async def after(changed: str) -> None:
        considered.append(changed)

    pairs = Pairs(store, {task: TaskPolicy(pairing=PairingPolicy(holdout=0))}, after, patience_s=0)
    pairs.stale.clear()
    write(store, other, upvote, event)
    await say(pairs, upvote, event)
    reasons = {pair["pair_id"]: pair["reason"] for pair in stored_pairs(store, task)}
    assert reasons.pop(to_vote(event).target) == "unknown_inference"
    # nothing changes while it stays away, however often one looks
    assert [await pairs.catch_up(task, BEFORE) for _ in range(3)] == [0, 0, 0]
    write(store, answer)
    considered.clear()
    assert await pairs.catch_up(task, BEFORE) == 1
    assert [p["status"] for p in stored_pairs(store, task) if kind in p["pair_id"] and answer.id in p["pair_id"]] == [
        "built"
    ]
    assert considered == [task]
    assert await pairs.catch_up(task, BEFORE) == 0
    assert (await pairs.sweep(task)).written == 0


async def test_feedback_that_a_killed_process_had_taken_is_caught_up_with(store: Store, task: str) -> None:
    """Feedback that was acknowledged, never derived and stored only after the next process's sweep makes its pair."""
    answer = inference(task, 1, "bad")
    event = feedback(task, 1, "correction", answer.id, "good")
    policy = {task: TaskPolicy(pairing=PairingPolicy(holdout=0))}
    await Pairs(store, policy).handle(event)  # and it is gone
    after = Pairs(store, policy, patience_s=0)
    assert (await after.sweep(task)).built == 0
    write(store, answer, event)
    assert await after.catch_up(task, BEFORE) == 1
    assert [pair["status"] for pair in stored_pairs(store, task)] == ["built"]


async def test_feedback_that_was_stored_just_now_is_left_to_its_handler(store: Store, task: str) -> None:
    """Looking again does not run ahead of the handler, which derives with all that it was given."""
    answer = inference(task, 1, "bad")
    write(store, answer, feedback(task, 1, "correction", answer.id, "good"))
    pairs = Pairs(store, {task: TaskPolicy()}, patience_s=60)
    assert await pairs.catch_up(task, BEFORE) == 0
    assert stored_pairs(store, task) == []


async def test_feedback_waits_for_its_evidence(store: Store, task: str) -> None:
    """Feedback that is not stored yet, or whose inference is not, makes its pair as soon as both are."""
    answer = inference(task, 1, "bad")
    event = feedback(task, 1, "correction", answer.id, "good")
    pairs = Pairs(store, {task: TaskPolicy(pairing=PairingPolicy(holdout=0))})
    pairs.stale.clear()
    await say(pairs, event)
    assert stored_pairs(store, task) == []
    write(store, event)
    await pairs.flush()
    assert stored_pairs(store, task) == []
    write(store, answer)
    await pairs.flush()
    assert [pair["status"] for pair in stored_pairs(store, task)] == ["built"]
    assert pairs.stale == set()


async def test_what_was_taken_and_not_derived_is_derived_after_a_crash(store: Store, task: str) -> None:
    """A builder that is killed between taking feedback and deriving loses no pair: the next one begins with a sweep."""
    answer = inference(task, 1, "bad")
    event = feedback(task, 1, "correction", answer.id, "good")
    write(store, answer, event)
    policy = {task: TaskPolicy(pairing=PairingPolicy(holdout=0))}
    await Pairs(store, policy).handle(event)  # and it is gone
    after = Pairs(store, policy)
    assert after.stale == {task}
    assert (await after.sweep(task)).built == 1


async def test_a_flood_of_feedback_is_left_to_the_sweep(store: Store, task: str) -> None:
    """Memory stays bounded: what is beyond the limit waits in ClickHouse, not here."""
    pairs = Pairs(store, {task: TaskPolicy()})
    pairs.stale.clear()
    event = feedback(task, 1, "thumb", uid(1), True)
    for _ in range(MOST_WAITING):
        await pairs.handle(event)
    assert pairs.stale == set()
    await pairs.handle(event)
    assert pairs.stale == {task}


async def test_imports_wait_for_the_sweep_and_it_takes_thousands(store: Store, task: str) -> None:
    """Three thousand imported votes cost the handler nothing, and one sweep makes their pairs."""
    answers = [inference(task, n % 3600, "ab"[n % 2], f"p{n // 2}", f"c{n // 2}") for n in range(2_000)]
    votes = [
        feedback(task, n, "preference", answers[p].id, value, compared_with=answers[p + 1].id, source="import")
        for n, (p, value) in enumerate((p, v) for p in range(0, 2_000, 2) for v in ["this", "this", "other"])
    ]
    write(store, *answers, *votes)
    pairs = Pairs(store, {task: TaskPolicy(pairing=PairingPolicy(holdout=0.2, max_pairs_per_user=5_000))}, patience_s=0)
    await say(pairs, votes[0])
    assert (stored_pairs(store, task), pairs.stale) == ([], {task})
    counts = await pairs.sweep(task)
    assert (counts.built, counts.written) == (1_000, 1_000)
    by_split = store.query("pair_counts", task=task)
    assert {row["split"] for row in by_split} == {"train", "holdout"}
    assert sum(row["n"] for row in by_split) == 1_000

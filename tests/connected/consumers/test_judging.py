"""The judge behind a broker and ClickHouse: thumbs down, weights, budgets over a restart, judging again."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, says
from parts import wait_for
from typer.testing import CliRunner

from ratchet.consumers.again import Again
from ratchet.consumers.ingest import Ingest
from ratchet.consumers.judge import Judge, recall_spent
from ratchet.consumers.rejudge import Rejudging
from ratchet.consumers.rules.flood import FloodPolicy
from ratchet.consumers.rules.sampling import draw
from ratchet.consumers.thumbs import Thumbs, stored_scores
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clock import now
from ratchet.infra.judge import JudgeClient
from ratchet.infra.judge_limits import Limits
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.stream import make_broker, subscribe
from ratchet.schemas.events import Event, Feedback, Inference, Score
from ratchet.schemas.ids import uuid7
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.pricing import Price
from ratchet.schemas.rows import row
from ratchet.schemas.topics import INFERENCE
from ratchet.services.cli.main import app

PRICE = Price(prompt_per_million=1e4, completion_per_million=1e5)
FRACTION = 0.3
TOLERANT = FloodPolicy(share=0.99, minimum=100_000)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """A judge that finds answers good or bad by their first word."""

    def grade(body: dict[str, Any]) -> Any:
        digit = "1" if '"answer": "Bad' in body["messages"][1]["content"] else "5"
        return says(digit, top={digit: 1.0})

    served = JudgeServer(grade)
    yield served
    served.close()


@pytest.fixture
def store(clickhouse: str) -> Iterator[Store]:
    """The embedded ClickHouse, with its tables."""
    with connect(clickhouse) as made:
        migrate(made)
        yield made


@pytest.fixture
def task() -> str:
    """A task that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


def answers(task: str, n: int, drawn: int, at: datetime) -> list[Inference]:
    """``n`` answers of which ``drawn`` are in the sample, the drawn ones first."""
    made: list[Inference] = []
    while len(made) < n:
        id = uuid7(int(at.timestamp() * 1000), uuid.uuid4().bytes)
        if draw(id, FRACTION).sampled == (len(made) < drawn):
            fields = {
                "id": id, "at": at + timedelta(seconds=len(made)), "task": task, "adapter": "base",
                "base_model": "tiny", "request": {"prompt": "When?"}, "response": {"content": f"Answer {len(made)}"},
                "status": "ok", "latency_ms": 1, "source": "http", "stage": "stable",
            }  # fmt: skip
            made.append(Inference.model_validate(fields))
    return made


def thumb(on: Inference, value: bool) -> Feedback:
    """A thumb on an answer."""
    ids = {"id": uuid7(int(now().timestamp() * 1000), uuid.uuid4().bytes), "at": now(), "task": on.task}
    return Feedback.model_validate(ids | {"inference_id": on.id, "kind": "thumb", "value": value, "source": "http"})


def write(store: Store, *events: Event) -> None:
    """Store events as ingest does."""
    by_table: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found = row(event)
        assert found is not None
        by_table.setdefault(found[0], []).append(found[1])
    for table, rows in by_table.items():
        store.insert_rows(table, rows)


def scores(store: Store, events: list[Inference]) -> dict[str, Score]:
    """The one score of each answer."""
    found = stored_scores(store, events[0].task, [event.id for event in events])
    assert max(Counter(score.target_id for score in found).values(), default=1) == 1
    return {score.target_id: score for score in found}


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)  # one broker is enough to show it
def test_thumbs_down_are_judged_once_and_for_certain(
    request: pytest.FixtureRequest,
    kafka: Any,
    clickhouse: str,
    store: Store,
    server: JudgeServer,
    task: str,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """Behind Kafka: a thumb before its answer, one on a judged and one on an unjudged answer; no answer is paid twice.

    The one that the sample had keeps its score and its cost and weighs 1; then the budget outlives a restart, and
    `ratchet judge run` finds nothing left to judge.
    """
    made = answers(task, 12, 4, now().replace(minute=0, second=0, microsecond=0))
    judged_before, early, unjudged = made[0], made[1], made[5]
    policy = TaskPolicy(judge=JudgePolicy(fraction=FRACTION))
    ensure_topics(kafka.bootstrap)
    publisher = KafkaPublisher(kafka.bootstrap, not kafka.embedded, "test")
    request.addfinalizer(publisher.close)
    stop = threading.Event()
    ingest = Ingest(kafka.bootstrap, store, publisher, 0.1, flood=TOLERANT, group=f"ingest-{task}")
    running = threading.Thread(target=ingest.run, args=(stop,), daemon=True)
    running.start()
    request.addfinalizer(lambda: (stop.set(), running.join(30)))

    async def live() -> None:
        broker = make_broker(kafka.bootstrap)
        clients = {"default": JudgeClient(server.url, "the-judge", retries=0, price=PRICE)}
        judging = Judge({task: policy}, publisher, clients)
        subscribe(broker, INFERENCE, f"judge-{task}", judging.handle, publisher)  # a group that no other test is in
        thumbs = Thumbs(store, judging, publisher, settle_s=1.0)
        publisher.publish(thumb(early, False))
        for event in made:
            publisher.publish(event)
        async with asyncio.timeout(60):
            await broker.start()
            while len(await asyncio.to_thread(scores, store, made)) < 4:  # noqa: ASYNC110 - a table tells nobody
                await asyncio.sleep(0.05)
            for event in (thumb(judged_before, False), thumb(unjudged, False), thumb(made[6], True)):
                publisher.publish(event)
            while (
                sum(one.inclusion_probability == 1 for one in (await asyncio.to_thread(scores, store, made)).values())
                < 3
            ):
                await thumbs.look()
                await asyncio.sleep(0.05)
            await broker.stop()

    asyncio.run(live())
    found = scores(store, made)
    certain = {id for id, score in found.items() if score.inclusion_probability == 1}
    assert certain == {judged_before.id, early.id, unjudged.id}
    assert found.keys() == certain | {event.id for event in made[:4]}
    assert {found[event.id].inclusion_probability for event in made[2:4]} == {FRACTION}
    assert len(server.asked) == 5, "each answer was paid for once"
    assert found[judged_before.id].cost_usd == pytest.approx(0.5)
    restarted = JudgeClient(server.url, "the-judge", price=PRICE)
    recall_spent(store, {"default": restarted}, now())
    assert restarted.budget.tokens >= 5 * 32
    (tmp_path / "ratchet.toml").write_text(
        f'kafka_bootstrap = "{kafka.bootstrap}"\nkafka_idempotence = {str(not kafka.embedded).lower()}\n'
        f'clickhouse_dsn = "{clickhouse}"\n[judges.one]\nurl = "{server.url}"\nmodel = "the-judge"\n'
        f'[judges.two]\nurl = "{server.url}"\nmodel = "second"\n'
        f'[tasks.{task}.judge]\nfraction = {FRACTION}\njudges = ["one"]\n'
    )
    monkeypatch.setenv("RATCHET_CONFIG", str(tmp_path / "ratchet.toml"))
    plan = _run("judge", "run", task, "--since", "2h", "--plan")
    assert (plan["stored"], plan["drawn"], plan["answers"], plan["cost_usd"]) == (12, 5, 0, None)
    other = _run("judge", "run", task, "--since", "2h", "--judge", "two", "--limit", "3")
    assert (other["judged"], other["left"], other["abstained"]) == (3, 2, 0)
    wait_for(lambda: len(stored_scores(store, task, [event.id for event in made])) == 8)
    other = _run("judge", "run", task, "--since", "2h", "--judge", "two")
    assert (other["judged"], other["left"]) == (2, 0)


def _run(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


async def test_a_budget_outlives_a_restart(store: Store, server: JudgeServer, task: str) -> None:
    """What the scores say was spent today is spent for the next process too: it abstains, and says until when."""
    made = answers(task, 3, 3, now())
    model, tasks = f"judge-of-{task}", {task: TaskPolicy(judge=JudgePolicy(fraction=FRACTION))}
    for spent, score in ((0, 1.0), (32, None)):
        publisher = MemoryPublisher()
        limits = Limits(tokens_per_day=1_000)
        client = JudgeClient(server.url, model, retries=0, limits=limits, max_tokens=8)
        recall_spent(store, {"default": client}, now())
        assert client.budget.tokens == spent
        if spent:
            client.budget.limits = Limits(tokens_per_day=spent + 100)
        await Judge(tasks, publisher, {"default": client}).handle(made[0 if score else 1])
        [said] = [event for event in publisher.events if isinstance(event, Score)]
        assert said.score == score
        write(store, said, said)
    midnight = (now() + timedelta(days=1)).replace(hour=0, minute=0)
    assert f"it goes on at {midnight:%Y-%m-%dT%H:%MZ}" in (said.rationale or "")
    assert len(server.asked) == 1


async def test_judging_again_is_the_same_sample(store: Store, server: JudgeServer, task: str) -> None:
    """A limited run takes the oldest, the next one the rest, a third nothing; a thumb since then changes a weight.

    The hourly view's mean is that of the sample by its inverse probabilities.
    """
    at = datetime(2026, 10, 5, 8, tzinfo=UTC)
    made = answers(task, 10, 5, at)
    write(store, *made, thumb(made[9], False))
    policy = JudgePolicy(fraction=FRACTION, rubric="quality.v1")
    publisher = MemoryPublisher()
    judging = Judge({task: TaskPolicy(judge=policy)}, publisher, {"a": JudgeClient(server.url, "j", price=PRICE)})
    again = Rejudging(store, judging, publisher, task, at, at + timedelta(hours=1))

    async def run(limit: int | None) -> Any:
        chosen = again.choose(limit)
        publisher.events.clear()
        done = await again.run(chosen)
        write(store, *publisher.events)
        return chosen, done

    chosen = again.choose()
    assert (chosen.stored, chosen.drawn) == (10, 6)
    plan = again.plan(chosen)
    assert (plan.answers, plan.requests, server.asked) == (6, 18, [])
    _, done = await run(2)
    assert (done.judged, done.left, done.cost_usd) == (2, 4, pytest.approx(2 * 3 * 0.5))
    assert plan.cost_usd is not None
    assert plan.cost_usd > 3 * done.cost_usd
    _, done = await run(None)
    assert (done.judged, done.left) == (4, 0)
    write(store, thumb(made[0], False))
    chosen, done = await run(None)
    assert (chosen.todo, done.reweighed, done.tokens) == ([], 1, 0)
    assert len(server.asked) == 18
    [hour] = store.query_sql(
        "SELECT n, weights, mean_score FROM ratchet.hourly_scores WHERE task = {task:String} AND rubric = 'quality.v1'",
        {"task": task},
    )
    assert (hour["n"], hour["weights"], hour["mean_score"]) == (6, pytest.approx(2 + 4 / FRACTION), 1.0)
    # a judge whose day is over ends the run instead of filling the table with abstentions
    tired = Judge(
        {task: TaskPolicy(judge=policy)},
        publisher,
        {"a": JudgeClient(server.url, "k", limits=Limits(tokens_per_day=9))},
    )
    ended = Rejudging(store, tired, publisher, task, at, at + timedelta(hours=1))
    stopped = await ended.run(ended.choose())
    assert (stopped.judged, stopped.abstained, stopped.left) == (0, 0, 6)
    assert "it goes on at" in stopped.stopped


async def test_a_thumb_from_before_the_judge_is_left_alone(store: Store, server: JudgeServer, task: str) -> None:
    """A mean of nothing but thumbs down would mean nothing: where the hour was not judged, a thumb is not either."""
    old, new = answers(task, 2, 0, now() - timedelta(hours=3))[0], answers(task, 1, 0, now())[0]
    write(store, old, new, thumb(old, False), thumb(new, False))
    publisher = MemoryPublisher()
    clients = {"default": JudgeClient(server.url, "j")}
    policy = TaskPolicy(judge=JudgePolicy(fraction=FRACTION))
    judging = Judge({task: policy}, publisher, clients, now=lambda: now() - timedelta(minutes=1))
    thumbs = Thumbs(store, judging, publisher)
    assert await thumbs.look() == (1, 0)
    assert [event.target_id for event in publisher.events if isinstance(event, Score)] == [new.id]
    assert await thumbs.look() == (0, 0), "it is on its way"


async def test_a_share_of_the_thumbs_down(store: Store, server: JudgeServer, task: str) -> None:
    """Where a policy judges half of them it is the half by the hash of their ids, each with that probability."""
    made = answers(task, 40, 12, now())
    write(store, *made, *(thumb(event, False) for event in made))
    publisher = MemoryPublisher()
    policy = TaskPolicy(judge=JudgePolicy(fraction=FRACTION, thumb_down_fraction=0.5))
    judging = Judge({task: policy}, publisher, {"default": JudgeClient(server.url, "j")}, now=lambda: made[0].at)
    for event in made[:6]:
        await judging.handle(event)
    write(store, *publisher.events)
    assert await Thumbs(store, judging, publisher).look() == (sum(draw(event.id, 0.5).sampled for event in made) - 6, 6)
    write(store, *publisher.events)
    found = scores(store, made)
    assert found.keys() == {event.id for event in made if draw(event.id, 0.5).sampled}
    assert {score.inclusion_probability for score in found.values()} == {0.5}
    assert len(server.asked) == len(found)


async def test_a_spent_budget_is_asked_again_the_next_day(store: Store, server: JudgeServer, task: str) -> None:
    """The abstention has the sample's probability and its own id, and so has the word that takes its place."""
    made, today = answers(task, 1, 1, now()), [now()]
    policy = {task: TaskPolicy(judge=JudgePolicy(fraction=FRACTION))}

    def judge(budget: int) -> tuple[Judge, MemoryPublisher]:
        out = MemoryPublisher()
        client = JudgeClient(server.url, "j", retries=0, limits=Limits(tokens_per_day=budget), now=lambda: today[0])
        return Judge(policy, out, {"default": client}, now=lambda: today[0]), out

    spent, out = judge(1)
    await spent.handle(made[0])
    write(store, *made, *out.events)
    before = scores(store, made)[made[0].id]
    assert before.score is None
    assert "budget" in (before.rationale or "")
    judging, out = judge(100_000)
    assert await Again(store, judging, lambda: today[0]).look() == 0, "not within the hour"
    today[0] += timedelta(days=1)
    assert await Again(store, judging, lambda: today[0]).look() == 1
    write(store, *out.events)
    after = scores(store, made)[made[0].id]
    assert (after.id, after.inclusion_probability, after.score) == (before.id, before.inclusion_probability, 1.0)
    assert await Again(store, judging, lambda: today[0]).look() == 0
    server.answer = lambda body: says("no grade from me")
    prose = answers(task, 1, 1, now())
    await judging.handle(prose[0])
    write(store, *prose, *out.events)
    today[0] += timedelta(hours=2)
    assert await Again(store, judging, lambda: today[0]).look() == 0, "prose is an answer"


async def test_a_thumb_on_a_conversation_is_about_its_last_answer(store: Store, server: JudgeServer, task: str) -> None:
    """The last answer before the thumb is judged for certain; one that came after it, or failed, is not."""
    drawn = answers(task, 4, 0, now() - timedelta(minutes=2))
    made = [one.model_copy(update={"conversation_id": "c"}) for one in drawn]
    made[2] = made[2].model_copy(update={"status": "error", "response": None})
    made[3] = made[3].model_copy(update={"at": now() + timedelta(minutes=5)})
    ids = {"id": uuid7(int(now().timestamp() * 1000), uuid.uuid4().bytes), "at": now(), "task": task}
    down = Feedback.model_validate(ids | {"conversation_id": "c", "kind": "thumb", "value": False, "source": "http"})
    write(store, *made, down)
    publisher = MemoryPublisher()
    judging = Judge(
        {task: TaskPolicy(judge=JudgePolicy(fraction=FRACTION))}, publisher, {"default": JudgeClient(server.url, "j")},
        now=lambda: made[0].at,
    )  # fmt: skip
    assert await Thumbs(store, judging, publisher).look() == (1, 0)
    [score] = [event for event in publisher.events if isinstance(event, Score)]
    assert (score.target_id, score.inclusion_probability) == (made[1].id, 1.0)
    again = Rejudging(store, judging, publisher, task, made[0].at, now() + timedelta(minutes=1))
    assert dict(again.choose().todo)[made[1].id] == 1.0, "as `judge run` draws it"

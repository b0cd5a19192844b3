"""Anchors over a real judge endpoint and ClickHouse: frozen, scored again, an alert when the judge moves."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, says
from parts import Broker
from typer.testing import CliRunner

from ratchet.consumers import anchor_files, anchors
from ratchet.consumers.anchors import Anchoring, graders_of
from ratchet.consumers.rules.anchors import Anchor
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.judge import JudgeClient
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import BrokerError, DatasetError
from ratchet.schemas.events import Event, Feedback, Inference, Score
from ratchet.schemas.ids import uuid7
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row
from ratchet.schemas.topics import ALERT, SCORE
from ratchet.services.cli.judge import app

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(clickhouse: str) -> Iterator[Store]:
    """ClickHouse with the product's tables."""
    with connect(clickhouse) as made:
        migrate(made)
        yield made


@pytest.fixture
def judge() -> Iterator[JudgeServer]:
    """A judge that gives good answers a 5 and others a 2."""
    served = JudgeServer(grades(5, 2))
    yield served
    served.close()


def grades(good: int, bad: int) -> Callable[[dict[str, Any]], Any]:
    """What a judge says of answers with "good" in them, and of others."""
    return lambda body: says(str(good if "good answer" in body["messages"][1]["content"] else bad))


class Watch:
    """A task's anchors beside one judge, at a time that the test sets; what is published is stored as ingest does."""

    def __init__(self, store: Store, folder: Path, judge: JudgeServer, **policy: Any) -> None:
        self.task, self.store, self.folder, self.now = f"t-{uuid.uuid4().hex[:12]}", store, folder, START
        self.tasks = {self.task: TaskPolicy.model_validate({"judge": {"samples": 1} | policy})}
        self.names = policy.get("judges", ["a"])
        self.url, self.publisher = judge.url, MemoryPublisher()

    @property
    def path(self) -> Path:
        """Of the anchors."""
        return anchor_files.path_of(self.folder, self.task)

    def keep(self, *events: Event) -> None:
        """Store events."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            found = row(event)
            assert found is not None
            rows.setdefault(found[0], []).append(found[1])
        for table, some in rows.items():
            self.store.insert_rows(table, some)

    def anchoring(self) -> Anchoring:
        """What scores them."""
        clients = {name: JudgeClient(self.url, f"judge-{name}", retries=0, failures=10_000) for name in self.names}
        graders = graders_of(self.tasks, clients, self.folder)
        return Anchoring(self.tasks, self.folder, graders, self.store, self.publisher, lambda: self.now)

    def stored(self) -> list[Event]:
        """Move what was published into ClickHouse."""
        events, self.publisher.events = list(self.publisher.events), []
        self.keep(*events)
        return events

    def run(self, hours: float) -> tuple[anchors.Watched, list[Alert]]:
        """Score the anchors so many hours after the start; the only judge's comparison, and the alerts."""
        self.now = START + timedelta(hours=hours)
        (watched,) = asyncio.run(self.anchoring().run(anchor_files.load(self.task, self.path)))
        return watched, [event for event in self.stored() if isinstance(event, Alert)]

    def freeze(self, n: int = 20) -> None:
        """Freeze hand-written anchors, half of them good."""
        made = [
            Anchor(prompt=f"q{number}", answer=f"{'good' if number % 2 else 'poor'} answer {number}")
            for number in range(n)
        ]
        anchor_files.freeze(self.task, self.path, made, self.now)


def test_a_judge_that_moves_raises_one_alert_and_resolves_it(store: Store, judge: JudgeServer, tmp_path: Path) -> None:
    """Steady, then 5s become 4s, then back: an alert opens with its evidence and is resolved; traffic sees no score."""
    watch = Watch(store, tmp_path, judge)
    watch.freeze()
    first, alerts = watch.run(0)
    assert (first.found.verdict, first.found.n, alerts) == ("steady", 20, [])
    judge.answer = grades(4, 2)
    moved, alerts = watch.run(48)
    assert (moved.found.verdict, moved.found.then, moved.found.now) == ("drifted", 0.625, 0.5)
    (opened,) = alerts
    assert (opened.kind, opened.state, opened.task) == ("judge_drift", "open", watch.task)
    assert (opened.evidence["judge"], opened.evidence["n"], opened.evidence["change"]) == ("judge-a", 20, -0.125)
    assert opened.evidence["rubric_hash"] == moved.of.rubric_hash
    _, alerts = watch.run(72)
    assert [(one.id, one.state) for one in alerts] == [(opened.id, "open")]
    judge.answer = grades(5, 2)
    _, alerts = watch.run(96)
    assert [(one.id, one.state) for one in alerts] == [(opened.id, "resolved")]
    assert watch.run(120)[1] == []
    for view, n in (("scores", 0), ("hourly_scores", 0), ("labels", 0), ("anchor_scores", 100)):
        counted = f"SELECT count() AS n FROM ratchet.{view} WHERE task = {{task:String}}"
        assert store.query_sql(counted, {"task": watch.task}) == [{"n": n}], view


def test_a_judge_that_is_away_says_nothing(store: Store, judge: JudgeServer, tmp_path: Path) -> None:
    """Abstentions are no scores: neither drift nor steady, an open alert stays open; Kafka away is an error."""
    watch = Watch(store, tmp_path, judge)
    watch.freeze()
    watch.run(0)
    judge.answer = grades(3, 1)
    opened = watch.run(24)[1]
    assert [one.state for one in opened] == ["open"]
    judge.answer = lambda body: (500, {"error": {"message": "away"}})
    away, alerts = watch.run(48)
    assert (away.found.verdict, away.found.n, alerts) == ("too few", 0, [])
    found = store.query("alert_states", ids=[opened[0].id])
    assert [one["state"] for one in found] == ["open"]
    watch.publisher.away = True
    with pytest.raises(BrokerError, match="Kafka did not take"):
        watch.run(72)


def test_anchors_are_scored_when_they_are_due(store: Store, judge: JudgeServer, tmp_path: Path) -> None:
    """At once after the freeze, then a day later; a file that changed is said and left alone."""
    watch = Watch(store, tmp_path, judge)
    watch.freeze()

    async def look(anchoring: Anchoring) -> None:
        stop = asyncio.Event()
        looking = asyncio.create_task(anchoring.keep_scored(stop))
        await asyncio.sleep(0)  # it begins with a look, and looks again after ten minutes
        stop.set()
        await looking

    def asked(hours: float) -> int:
        judge.asked.clear()
        watch.now = START + timedelta(hours=hours)
        asyncio.run(look(watch.anchoring()))
        watch.stored()
        return len(judge.asked)

    assert [asked(hours) for hours in (0, 1, 23.9, 24.1, 25)] == [20, 0, 0, 20, 0]
    lines = watch.path.read_text().splitlines()
    watch.path.write_text("\n".join([*lines[:-1], lines[-1].replace("answer 19", "reply 19")]))
    assert asked(100) == 0
    with pytest.raises(DatasetError, match="line 20 changed since it was frozen"):
        anchor_files.load(watch.task, watch.path)


def test_every_judge_of_a_cascade_scores_every_anchor(store: Store, judge: JudgeServer, tmp_path: Path) -> None:
    """The first is always sure, so traffic never reaches the second; on anchors all three words are watched."""
    judge.answer = lambda body: says("5", top={"5": 1.0})
    watch = Watch(store, tmp_path, judge, judges=["a", "b"], combine="cascade")
    watch.freeze()
    found = asyncio.run(watch.anchoring().run(anchor_files.load(watch.task, watch.path)))
    assert {(one.of.judge, one.found.n) for one in found} == {
        ("judge-a", 20), ("judge-b", 20), ("cascade:judge-a>judge-b", 20),
    }  # fmt: skip


def test_anchors_are_drawn_from_labelled_answers(
    store: Store, judge: JudgeServer, clickhouse: str, tmp_path: Path
) -> None:
    """Half good, half bad, the same ones each time, hollow ones left out; the commands freeze, refuse, and show."""
    watch = Watch(store, tmp_path, judge)
    ids = [uuid7(1_000 + n, uuid.uuid4().bytes) for n in range(60)]
    of: dict[str, Any] = {"at": START, "task": watch.task, "source": "http"}
    answer = of | {"adapter": "base", "stage": "stable", "base_model": "m", "status": "ok", "latency_ms": 1}
    events: list[Event] = []
    for number, id in enumerate(ids):
        asked = {"messages": [{"role": "user", "content": f"q{number}"}]}
        said = {"content": f"answer {number}" if number else ""}
        vote = {"id": uuid7(1, uuid.uuid4().bytes), "inference_id": id, "kind": "thumb", "value": number % 3 == 0}
        events.append(Inference.model_validate(answer | {"id": id, "request": asked, "response": said}))
        events.append(Feedback.model_validate(of | vote))
    watch.keep(*events)
    drawn = anchor_files.draw(store, watch.task, 20, 20)
    assert [one.label for one in drawn].count(1.0) == 10
    assert drawn == anchor_files.draw(store, watch.task, 20, 20)
    assert all(one.inference_id in ids[1:] for one in drawn)
    with pytest.raises(DatasetError, match="answers to draw anchors from, of 200"):
        anchor_files.draw(store, watch.task, 300, 200)
    (tmp_path / "ratchet.toml").write_text(f"[tasks.{watch.task}]\n")
    run = CliRunner(env={"RATCHET_CLICKHOUSE_DSN": clickhouse, "RATCHET_CONFIG": str(tmp_path / "ratchet.toml")})
    made = json.loads(run.invoke(app, ["anchors", "freeze", watch.task, "--n", "40", "--no-score", "--json"]).stdout)
    assert made["n"] == 39  # of 20 good ones one is hollow
    again = run.invoke(app, ["anchors", "freeze", watch.task, "--no-score"])
    assert "is there already; --replace" in str(again.exception)
    assert "no judge has scored them" in run.invoke(app, ["anchors", "show", watch.task]).stdout
    watch.now = datetime.fromisoformat(made["frozen_at"])
    watch.run((watch.now - START).total_seconds() / 3600)
    text = run.invoke(app, ["anchors", "show", watch.task]).stdout
    assert "the judge is steady" in text
    assert "advisory: no human label of an answer that it scored (n = 0 of 50)" in text
    (shown,) = json.loads(run.invoke(app, ["anchors", "show", watch.task, "--json"]).stdout)["judges"]
    assert (shown["judge"], shown["verdict"], shown["change"]) == ("judge-a", "steady", 0.0)
    replaced = run.invoke(app, ["anchors", "freeze", watch.task, "--from", str(watch.path), "--replace", "--no-score"])
    assert "are frozen" in replaced.stdout
    assert anchor_files.load(watch.task, watch.path).hash == made["set"]
    assert "no judge has scored them" in run.invoke(app, ["anchors", "show", watch.task]).stdout


def test_the_command_scores_anchors_and_kafka_has_them(
    kafka: Broker, store: Store, judge: JudgeServer, clickhouse: str, tmp_path: Path
) -> None:
    """`anchors freeze --from` asks the judge that the settings name and delivers its scores; `run` says what moved."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    (tmp_path / "ratchet.toml").write_text(
        f'[judges.default]\nurl = "{judge.url}"\nmodel = "judge-a"\n[tasks.{task}]\njudge = {{ samples = 1 }}\n'
    )
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"prompt": f"q{n}", "answer": f"good answer {n}"}) + "\n" for n in range(20)))
    ensure_topics(kafka.bootstrap)
    environment = {"RATCHET_CLICKHOUSE_DSN": clickhouse, "RATCHET_KAFKA_BOOTSTRAP": kafka.bootstrap}
    environment |= {"RATCHET_CONFIG": str(tmp_path / "ratchet.toml"), "RATCHET_KAFKA_IDEMPOTENCE": "false"}
    run = CliRunner(env=environment)
    made = json.loads(run.invoke(app, ["anchors", "freeze", task, "--from", str(answers), "--json"]).stdout)
    (first,) = made["judges"]
    assert (first["judge"], first["verdict"], first["n"], first["now"]) == ("judge-a", "steady", 20, 1.0)
    assert first["standing"].startswith("advisory: no human label")
    scores = [parse(Score, one.value) for one in read_all(kafka.bootstrap, SCORE.name) if task.encode() in one.value]
    assert [one.target for one in scores] == ["anchor"] * 20
    found = [row(one) for one in scores]
    store.insert_rows("scores_log", [one[1] for one in found if one])
    judge.answer = grades(3, 3)
    text = run.invoke(app, ["anchors", "run", task]).stdout
    assert "the judge moved: mean 1.000 at the freeze, 0.500 now" in text
    alerts = [parse(Alert, one.value) for one in read_all(kafka.bootstrap, ALERT.name) if task.encode() in one.value]
    assert [(one.kind, one.state) for one in alerts] == [("judge_drift", "open")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("no json", "line 2: event: Invalid JSON"),
        ('{"answer": "x"}', "exactly one of messages, prompt"),
        ('{"prompt": "x", "answer": ""}', "line 2: answer"),
        ('{"prompt": "q", "answer": "a"}', "line 2: the same as line 1"),
    ],
)
def test_a_bad_anchor_is_named_by_its_line(tmp_path: Path, line: str, why: str) -> None:
    """A line that is no anchor, or one twice, stops; anchors are few and frozen, so none is left out in silence."""
    path = tmp_path / "anchors.jsonl"
    path.write_text('{"prompt": "q", "answer": "a"}\n' + line + "\n")
    with pytest.raises(DatasetError, match=why):
        anchor_files.read("t", path)
    with pytest.raises(DatasetError, match="No such file or directory; make it with"):
        anchor_files.load("t", tmp_path / "missing.jsonl")

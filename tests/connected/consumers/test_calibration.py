"""Judges against people over ClickHouse: the same figures as in memory, and nothing that is no traffic in them."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.consumers.calibration import comparing, correct, in_force, measured, scored
from ratchet.consumers.rules.standing import Labelled, calibrate, expiry, tally
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Event, Feedback, Inference, Score
from ratchet.schemas.ids import uuid7
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row
from ratchet.services.calibrating import keep
from ratchet.services.cli.judge import app
from ratchet.services.labels import read_labels

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICY = TaskPolicy()
RUBRIC = "helpful.v1"


class Task:
    """A task's scores and feedback, written as ingest writes them."""

    def __init__(self, store: Store) -> None:
        self.store, self.name = store, f"t-{uuid.uuid4().hex[:12]}"
        self.random = random.Random(11)
        self._events: list[Event] = []

    def id(self) -> str:
        """A new id."""
        return uuid7(self.random.getrandbits(40), self.random.randbytes(10))

    def judged(self, on: str, score: float | None, **more: object) -> None:
        """A judge's word, or its abstention."""
        fields: dict[str, Any] = {"id": self.id(), "at": NOW, "task": self.name, "adapter": "base", "target_id": on}
        fields |= {"kind": "pointwise", "target": "inference", "judge": "j", "rubric": RUBRIC, "rubric_hash": "0" * 16}
        fields |= {"score": score} if score is not None else {"verdict": "abstain"}
        self._events.append(Score.model_validate(fields | more))

    def said(self, on: str, kind: str, value: object, at: datetime = NOW) -> None:
        """A person's word."""
        fields = {"id": self.id(), "at": at, "task": self.name, "inference_id": on, "source": "http"}
        self._events.append(Feedback.model_validate(fields | {"kind": kind, "value": value}))

    def answer(self, id: str, text: str = "ok") -> None:
        """An answer of the app."""
        fields = {"id": id, "at": NOW, "task": self.name, "adapter": "base", "stage": "stable", "base_model": "m"}
        fields |= {"request": {"prompt": "?"}, "response": {"content": text}, "status": "ok", "latency_ms": 1}
        self._events.append(Inference.model_validate(fields | {"source": "http"}))

    def write(self) -> None:
        """Store everything, some of it twice, as a redelivery does."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for event in self._events + self._events[:4]:
            found = row(event)
            assert found is not None
            rows.setdefault(found[0], []).append(found[1])
        for table, some in rows.items():
            self.store.insert_rows(table, some)
        self._events = []


@pytest.fixture(scope="module")
def store(clickhouse: str) -> Iterator[Store]:
    """ClickHouse with the product's tables."""
    with connect(clickhouse) as made:
        migrate(made)
        yield made


def test_people_and_judge_agree_as_counted_by_hand(store: Store) -> None:
    """Judged answers with a label are compared; abstentions, checks, shadows and split opinions are left out."""
    task = Task(store)
    targets = [task.id() for _ in range(10)]
    words = [(0.9, "thumb", True), (0.5, "outcome", True), (0.1, "thumb", False), (0.9, "correction", "better")]
    words += [(0.2, "outcome", True), (None, "thumb", True), (0.9, "rating", 0.5)]
    for target, (score, kind, value) in zip(targets, words, strict=False):
        task.judged(target, score)
        task.said(target, kind, value)
    task.judged(targets[7], 0.9)  # nobody said anything of it
    task.judged(targets[0], 0.0, kind="check", judge="check")
    task.judged(targets[8], 1.0, target="shadow")
    task.said(targets[8], "thumb", True)
    task.judged(targets[9], 0.9)  # an expert's word wins over two users'
    task.said(targets[9], "thumb", True)
    task.said(targets[9], "thumb", True)
    task.judged(targets[9], 0.1, kind="label", judge="ada", rubric="label")
    task.judged(targets[9], 0.0, target="anchor")
    task.write()
    (found,) = measured(store, task.name, POLICY, NOW)
    assert (found.judge, found.n, found.undecided) == ("j", 6, 1)
    cells = (found.both_good, found.judge_only_good, found.people_only_good, found.both_bad)
    assert cells == (2, 2, 1, 1)
    force = in_force(store, task.name, POLICY, NOW)
    assert (force.judge, force.standing.trusted) == ("j", False)
    assert force.standing.reason == "6 of 50 labels"
    shown = store.query_sql(
        "SELECT DISTINCT target, kind FROM ratchet.scores WHERE task = {task:String}", {"task": task.name}
    )
    assert {(one["target"], one["kind"]) for one in shown} == {
        ("inference", "pointwise"), ("inference", "check"), ("shadow", "pointwise"),
    }  # fmt: skip
    hours = store.query_sql(
        "SELECT sum(n) AS n FROM ratchet.hourly_scores WHERE task = {task:String} AND kind = 'pointwise'"
        " AND target = 'inference'",
        {"task": task.name},
    )
    assert hours[0]["n"] == 9  # neither the anchor's nor the expert's


def test_clickhouse_counts_as_python_does(store: Store) -> None:
    """300 weighted answers, some labelled long ago: every figure is that of the same answers in memory."""
    task, items, ages = Task(store), [], []
    expired, times = 0, []
    positive = unlabelled = 0
    for number in range(300):
        target, good = task.id(), task.random.random() < 0.6
        score = min(1.0, max(0.0, task.random.gauss(0.7 if good else 0.4, 0.2)))
        probability = 1.0 if number % 7 == 0 else 0.25
        task.judged(target, score, inclusion_probability=probability)
        positive += score >= 0.5
        if number % 2:
            unlabelled += 1
            continue
        at = NOW - timedelta(days=number)
        if number % 4:
            task.said(target, "thumb", good, at)
            label = float(good)
        else:
            label = task.random.choice([0.0, 0.25, 0.5, 0.75, 1.0])
            task.said(target, "rating", label, at)
        if at < NOW - timedelta(days=90):
            expired += label != 0.5
            continue
        items.append(Labelled(label, score, 1 / probability, at))
        ages.append(at)
        times += [at] * (label != 0.5)
    task.write()
    policy = TaskPolicy.model_validate({"judge": {"min_labels": 20}})
    (found,) = measured(store, task.name, policy, NOW)
    lasts = expiry(times, 20, timedelta(days=90))
    expected = calibrate(task.name, "j", RUBRIC, "0" * 16, tally(items), expired=expired, expires_at=lasts)
    assert found.weighted_kappa is not None
    for name in (
        "n",
        "undecided",
        "expired",
        "expires_at",
        "both_good",
        "judge_only_good",
        "people_only_good",
        "both_bad",
    ):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("agreement", "kappa", "weighted_kappa", "sensitivity", "specificity"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours.n, ours.value, ours.variance) == pytest.approx((theirs.n, theirs.value, theirs.variance)), name
    for name in found.labelled.__slots__:
        assert getattr(found.labelled, name) == pytest.approx(getattr(expected.labelled, name)), name
    traffic = scored(store, task.name, policy, NOW - timedelta(days=1), NOW)["j", RUBRIC, "0" * 16]
    assert (traffic.positive.n, round(traffic.positive.effective_n)) == (300, round(traffic.scores.effective_n))
    assert traffic.unlabelled.n == 300 - len(items)
    figures = correct(found, traffic)
    assert figures.rate is not None
    assert figures.mean is not None
    assert figures.tuned is not None
    assert figures.tuned.variance <= figures.mean.variance


def test_a_judge_without_scores_and_a_task_without_labels(store: Store, clickhouse: str, tmp_path: Path) -> None:
    """Nothing judged, or nothing labelled: advisory with n = 0, in words; the same from the command line."""
    task = Task(store)
    assert in_force(store, task.name, POLICY, NOW).judge == ""
    assert measured(store, task.name, POLICY, NOW) == []
    task.judged(task.id(), 0.9)
    task.write()
    found = in_force(store, task.name, POLICY, NOW)
    assert (found.judge, found.calibration, found.standing.trusted) == ("j", None, False)
    (tmp_path / "ratchet.toml").write_text(f"[tasks.{task.name}]\n")
    environment = {"RATCHET_CLICKHOUSE_DSN": clickhouse, "RATCHET_CONFIG": str(tmp_path / "ratchet.toml")}
    run = CliRunner(env=environment)
    assert json.loads(run.invoke(app, ["calibrate", task.name, "--json"]).stdout) == {"task": task.name, "judges": []}
    text = run.invoke(app, ["calibrate", task.name, "--judge", "k"]).stdout
    assert "no score of judge 'k' on an answer that people labelled: n = 0" in text


def test_a_panels_word_is_the_one_in_force(store: Store) -> None:
    """Of several judges the common word gates, not a member's; another wording of the rubric needs labels anew."""
    task = Task(store)
    for number in range(120):
        target, good = task.id(), number % 2 == 0
        for judge in ("a", "b", "panel:a+b"):
            task.judged(target, 0.9 if good else 0.1, judge=judge, at=NOW - timedelta(minutes=5))
        task.said(target, "thumb", good)
    task.write()
    policy = TaskPolicy.model_validate({"judge": {"judges": ["a", "b"]}})
    found = in_force(store, task.name, policy, NOW)
    assert found.judge == "panel:a+b"
    assert found.standing.trusted
    task.judged(task.id(), 0.9, judge="panel:a+b", rubric_hash="1" * 16)
    task.write()
    reworded = in_force(store, task.name, policy, NOW)
    assert (reworded.rubric_hash, reworded.standing.trusted) == ("1" * 16, False)


def test_comparisons_count_by_the_judge_that_labels_are_about(store: Store) -> None:
    """A word on pairs is trusted where the same judge's scores stood up to people's labels, and nobody else's is."""
    task = Task(store)
    assert comparing(store, task.name, POLICY, NOW).judge == ""
    pair: dict[str, Any] = {"kind": "pairwise", "target": "shadow", "rubric": "pairwise.v1"}
    task.judged(task.id(), 0.5, **pair, at=NOW - timedelta(minutes=1))
    task.judged(task.id(), 0.5, **pair | {"rubric": "pairwise.v1/candidate-first"}, judge="x")
    task.write()
    assert not comparing(store, task.name, POLICY, NOW).standing.trusted  # nobody labelled anything
    for number in range(120):
        target, good = task.id(), number % 2 == 0
        task.judged(target, 0.9 if good else 0.1)
        task.said(target, "thumb", good)
    task.write()
    found = comparing(store, task.name, POLICY, NOW)
    assert (found.judge, found.rubric_hash, found.standing.trusted) == ("j", "0" * 16, True)
    task.judged(task.id(), 0.5, **pair, judge="k")
    task.write()
    other = comparing(store, task.name, POLICY, NOW)
    assert (other.judge, other.standing.trusted) == ("k", False)
    assert other.standing.reason == "k is not the judge that people's labels are about"


def test_a_files_labels_count_once_they_are_kept(store: Store, clickhouse: str, tmp_path: Path) -> None:
    """Labels by id measure the judges that scored those answers; kept, they count in every later calibration."""
    task = Task(store)
    ids = [task.id() for _ in range(60)]
    for number, id in enumerate(ids):
        task.answer(id)
        task.judged(id, 0.9 if number % 2 else 0.1)
    task.write()
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps({"inference_id": id, "label": n % 2 == 1}) + "\n" for n, id in enumerate(ids)))
    (tmp_path / "ratchet.toml").write_text(f"[tasks.{task.name}]\n")
    environment = {"RATCHET_CLICKHOUSE_DSN": clickhouse, "RATCHET_CONFIG": str(tmp_path / "ratchet.toml")}
    said = CliRunner(env=environment).invoke(app, ["calibrate", task.name, "--labels", str(path), "--json"]).stdout
    (judge,) = json.loads(said)["judges"]
    assert (judge["judge"], judge["n"], judge["agreement"]["value"]) == ("j", 60, 1.0)
    assert not in_force(store, task.name, POLICY, NOW).standing.trusted  # a look is no label
    publisher, file = MemoryPublisher(), read_labels(path)
    assert keep(store, publisher, task.name, file, NOW) == 60
    task._events = list(publisher.events)
    task.write()
    assert in_force(store, task.name, POLICY, NOW).standing.trusted
    file.records.append(file.records[0].model_copy(update={"inference_id": task.id()}))
    with pytest.raises(DatasetError, match="1 labels are of no stored answer"):
        keep(store, MemoryPublisher(), task.name, file, NOW)

"""Drift's monitor on a real ClickHouse: one alert from a shift's first hours to its end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from ratchet.consumers.monitor import Monitor
from ratchet.consumers.report import term_hours
from ratchet.consumers.rules.shift_simulation import KINDS
from ratchet.consumers.shift_rates import expected_of_shift
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clickhouse.rollup import roll
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.drift_policy import DriftPolicy
from ratchet.schemas.events import Feedback
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert, Drift
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = DriftPolicy(baseline_hours=24, persistence=2, resolve_hours=2, cooldown_hours=4, min_n=20)
EACH_HOUR = 520


class Watched:
    """A task's traffic, its monitor and the loop from what the monitor says back into the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.task = f"t-{uuid.uuid4().hex[:12]}"
        self.now = START
        self.publisher = MemoryPublisher()
        self.monitor = self.started()

    def started(self) -> Monitor:
        """A monitor that remembers nothing."""
        return Monitor(self.store, self.publisher, {self.task: TaskPolicy(drift=POLICY)}, lambda: self.now)

    def serve(self, first: int, last: int, content: str = "fine, it is on its way", share: float = 0.0) -> None:
        """Answer ``EACH_HOUR`` requests an hour from ``first`` on and before ``last``; a share is twice as long."""
        lines = []
        for hour in range(first, last):
            for number in range(EACH_HOUR):
                longer = content * (2 if number < share * EACH_HOUR else 1) + "." * (number % 23)
                lines.append(
                    {
                        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.task}{hour}{number}")),
                        "at": (START + hour * HOUR + timedelta(seconds=number)).isoformat(),
                        "task": self.task, "adapter": "base", "stage": "stable", "status": "ok",
                        "request": '{"messages":[{"role":"user","content":"where is my order?"}]}',
                        "content": longer, "latency_ms": 100.0 + number % 7,
                    }
                )  # fmt: skip
        self.store.insert_json("inferences_log", b"\n".join(orjson.dumps(line) for line in lines))
        roll(self.store, 0, 0)

    def judge(self, first: int, last: int, score: float) -> None:
        """Score 60 answers of each hour around ``score``."""
        lines = [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"s{self.task}{hour}{number}")),
                "at": (START + hour * HOUR + timedelta(seconds=number)).isoformat(),
                "task": self.task, "adapter": "base", "target": "inference", "kind": "pointwise",
                "target_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.task}{hour}{number}")),
                "judge": "j", "rubric": "helpful.v1", "rubric_hash": "0" * 16,
                "score": min(1.0, max(0.0, score + 0.2 * ((number * 7) % 11 - 5) / 5)), "inclusion_probability": 0.2,
            }
            for hour in range(first, last)
            for number in range(60)
        ]  # fmt: skip
        self.store.insert_json("scores_log", b"\n".join(orjson.dumps(line) for line in lines))
        roll(self.store, 0, 0)

    def label(self) -> None:
        """People say of a hundred answers of another adapter what the judge says of them."""
        scores, thumbs = [], []
        for number in range(100):
            id = derived_id(0, self.task, str(number))
            scores.append(
                {
                    "id": derived_id(1, self.task, str(number)), "at": START.isoformat(), "task": self.task,
                    "adapter": f"{self.task}@v1-1a2b3c4d", "target": "inference", "kind": "pointwise", "target_id": id,
                    "judge": "j", "rubric": "helpful.v1", "rubric_hash": "0" * 16,
                    "score": 0.9 if number % 2 else 0.1, "inclusion_probability": 1.0,
                }
            )  # fmt: skip
            said = Feedback(
                id=derived_id(2, self.task, str(number)), at=START, task=self.task, inference_id=id, kind="thumb",
                value=bool(number % 2), source="http",
            )  # fmt: skip
            stored = row(said)
            assert stored is not None
            thumbs.append(stored[1])
        self.store.insert_json("scores_log", b"\n".join(orjson.dumps(line) for line in scores))
        self.store.insert_json("feedback_log", b"\n".join(orjson.dumps(line) for line in thumbs))

    def look(self, hour: int) -> list[Alert]:
        """Look after an hour's end, store what was said, and give the alerts among it."""
        before = len(self.publisher.events)
        self.now = START + hour * HOUR + timedelta(minutes=20)
        self.monitor.look()
        said = self.publisher.events[before:]
        for event in said:
            stored = row(event)
            assert stored is not None
            self.store.insert_json(stored[0], orjson.dumps(stored[1]))
        return [event for event in said if isinstance(event, Alert)]

    def said(self, metric: str, rule: str) -> list[Drift]:
        """What was said of a metric so far."""
        events = (event for event in self.publisher.events if isinstance(event, Drift))
        return [event for event in events if (event.metric, event.rule) == (metric, rule)]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What the store has of the task."""
        return self.store.query_sql(f"SELECT * FROM ratchet.{table} WHERE task = {{task:String}}", {"task": self.task})


@pytest.fixture
def watched(clickhouse: str) -> Iterator[Watched]:
    """A task of the test's own on a migrated store."""
    with connect(clickhouse) as store:
        migrate(store)
        yield Watched(store)


def test_a_shift_is_one_alert_from_its_first_hours_to_its_end(watched: Watched) -> None:
    """Longer answers raise one alert after the policy's hours, over restarts and repeated looks, and it resolves."""
    watched.serve(0, 26)
    assert watched.look(26) == []
    watched.serve(26, 28, share=0.9)
    raised = watched.look(27) + watched.look(28)
    [alert] = [one for one in raised if one.evidence["metric"] == "answer_length"]
    assert (alert.kind, alert.severity, alert.state) == ("drift", "warning", "open")
    assert alert.since is not None
    assert "→" in alert.summary
    assert "characters" in alert.summary
    assert alert.evidence["top"]
    assert alert.runbook == "docs/runbooks/drift.md"
    assert len(alert.evidence["inferences"]) == 5
    assert all(one.false_alarms_per_year is not None for one in raised), "under a policy of its own, too"
    watched.monitor = watched.started()
    watched.serve(28, 30)
    later = [one for hour in (28, 30, 30) for one in watched.look(hour) if one.key == alert.key]
    assert [(one.id, one.state) for one in later] == [(alert.id, "resolved")]
    [stored] = [one for one in watched.rows("alerts") if one["key"] == alert.key]
    assert (str(stored["id"]), stored["state"]) == (alert.id, "resolved")
    said = watched.rows("drift")
    assert len({str(one["id"]) for one in said}) == len(said)
    assert {one["verdict"] for one in said if one["metric"] == "judge_score"} == {"abstain"}


def test_quality_below_its_baseline_for_three_hours_pages(watched: Watched) -> None:
    """Judged quality 20% down pages in the third hour, with the rule's false alarms; an advisory judge only warns."""
    watched.serve(0, 1)
    watched.serve(30, 33)
    watched.judge(0, 30, 0.8)
    watched.judge(30, 33, 0.64)
    [warning] = [one for one in watched.look(33) if one.evidence["rule"] == "page"]
    assert (warning.severity, warning.since) == ("warning", START + 30 * HOUR)
    assert "the judge is advisory: no human label" in warning.summary
    other = Watched(watched.store)
    other.label()
    other.serve(0, 1)
    other.serve(30, 33)
    other.judge(0, 30, 0.8)
    other.judge(30, 33, 0.64)
    assert not [one for one in other.look(32) if one.evidence["rule"] == "page"]
    [page] = [one for one in other.look(33) if one.evidence["rule"] == "page"]
    assert (page.severity, page.kind, page.since) == ("critical", "quality", START + 30 * HOUR)
    assert page.false_alarms_per_year is not None
    assert page.evidence["n"] == 60
    assert "80" in page.summary
    assert "64" in page.summary


def test_a_judge_that_drifted_silences_quality(watched: Watched) -> None:
    """While an alert says that the judge itself has drifted, quality raises nothing, and the record says why."""
    told = Alert(
        id="019a3f2c-0011-7000-8000-000000000011", at=START, task=watched.task, kind="judge_drift",
        severity="warning", title="j grades frozen anchors lower than at the freeze", source="anchors",
    )  # fmt: skip
    stored = row(told)
    assert stored is not None
    watched.store.insert_json(stored[0], orjson.dumps(stored[1]))
    watched.serve(0, 1)
    watched.serve(30, 33)
    watched.judge(0, 30, 0.8)
    watched.judge(30, 33, 0.64)
    assert [one for one in watched.look(33) if one.evidence["metric"] == "judge_score"] == []
    last = watched.said("judge_score", "page")[-1]
    assert last.verdict == "drift"
    assert "no alert: j grades frozen anchors lower" in last.reason


def test_late_events_amend_their_hour(watched: Watched) -> None:
    """An hour that late events changed is said again under the same id, with the new figure, and counts once."""
    watched.serve(0, 1)
    watched.serve(28, 30)
    watched.judge(0, 28, 0.8)
    watched.look(30)
    assert START + 30 * HOUR not in {one.at for one in watched.said("judge_score", "page")}
    watched.judge(28, 30, 0.8)
    watched.look(30)
    again = [one for one in watched.said("judge_score", "page") if one.at == START + 30 * HOUR]
    assert [one.n for one in again] == [60]
    kept = [one for one in watched.rows("drift") if (one["metric"], one["rule"]) == ("judge_score", "page")]
    assert len({one["at"] for one in kept}) == len(kept)
    said = len(watched.publisher.events)
    watched.look(30)
    assert len(watched.publisher.events) == said


def test_clocks_that_jump(watched: Watched) -> None:
    """A clock that goes back judges nothing twice; one that leaps a week ahead judges a day at most."""
    watched.serve(0, 1)
    watched.serve(26, 30)
    watched.look(30)
    said = len(watched.publisher.events)
    watched.look(28)
    assert len(watched.publisher.events) == said
    watched.look(30 + 168)
    late = [event for event in watched.publisher.events[said:] if isinstance(event, Drift)]
    assert {event.verdict for event in late} <= {"abstain"}
    assert not [event for event in watched.publisher.events if isinstance(event, Alert)]


def test_the_rule_of_every_metric_says_how_often_it_is_wrong(watched: Watched) -> None:
    """Simulated at this traffic's own variation: a stricter policy is wrong less often; without hours it is a guess."""
    watched.serve(0, 26)
    watched.judge(0, 26, 0.8)
    policy = TaskPolicy(drift=POLICY)
    for metric in KINDS:
        said = Drift(
            id=derived_id(1, watched.task, metric), at=START + 26 * HOUR, task=watched.task, adapter="base",
            metric=metric, rule="shift", since=START + 25 * HOUR, baseline_since=START, verdict="drift",
            n=EACH_HOUR, baseline=0.1,
        )  # fmt: skip
        found = expected_of_shift(watched.store, said, policy, same_hours=False)
        assert 0 <= found.low <= found.per_year <= found.high, metric
        assert found.days >= 1000
        # of rates that were 0, of feedback that nobody gave and of a cost without a price no hour says how they vary
        known = KINDS[metric] != "rates" and metric != "cost"
        assert (found.note == "") == known, (metric, found.note)
        if metric not in {kind: metric for metric, kind in KINDS.items()}.values():
            continue  # one of each kind
        strict = TaskPolicy(drift=POLICY.model_copy(update={"thresholds": {metric: 0.5}, "persistence": 6}))
        assert expected_of_shift(watched.store, said, strict, same_hours=False).per_year <= found.per_year


def test_terms_vary_by_what_their_hours_show(watched: Watched) -> None:
    """Hours that speak of other things have a larger deviation between them, which the simulation is given."""
    watched.serve(0, 12)
    for hour in range(12, 24):
        watched.serve(hour, hour + 1, content="the parcel waits at customs" if hour % 2 else "fine, it is on its way")
    even = term_hours(watched.store, watched.task, "base", "output", START, START + 12 * HOUR)
    odd = term_hours(watched.store, watched.task, "base", "output", START + 12 * HOUR, START + 24 * HOUR)
    assert all(one.n == EACH_HOUR for values in even.values() for one in values)
    spread = {term: {round(one.mean, 3) for one in values} for term, values in odd.items()}
    assert spread["customs"] == {0.0, 1.0}
    assert {round(one.mean, 3) for values in even.values() for one in values} == {1.0}

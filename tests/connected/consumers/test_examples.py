"""Examples of a move on a real ClickHouse: the calls that an engineer should read first."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ratchet.consumers.examples import examples
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Drift, Moved
from ratchet.schemas.rows import instant

AT = datetime(2026, 11, 2, 12, tzinfo=UTC)
V1 = "t@v1-1a2b3c4d"
CALLS: list[dict[str, Any]] = [
    {"content": "short"},
    {"content": "a long answer " * 9, "latency_ms": 900.0},
    {"content": "I’m unable to help with that.", "cost_usd": 0.5},
    {"content": "It is unclear whether it came.", "latency_ms": 800.0},
    {"content": "", "status": "error", "latency_ms": 5000.0},
    {"content": "", "status": "timeout", "latency_ms": 3000.0},
    {"content": "", "status": "cancelled", "latency_ms": 9000.0},
    {"content": "fine", "prompt": "a question about the new Kündigung"},
]


@pytest.fixture(scope="module")
def store(clickhouse: str) -> Iterator[Store]:
    """A migrated store."""
    with connect(clickhouse) as opened:
        migrate(opened)
        yield opened


class Calls:
    """A task with `CALLS` twice delivered, another adapter's, and an earlier hour's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.task = f"t-{uuid.uuid4().hex[:12]}"
        self.number = {derived_id(1, self.task, str(number)): number for number in range(len(CALLS))}
        rows = [self.call(id, AT) | CALLS[number] for id, number in self.number.items()]
        rows += [self.call(derived_id(2, self.task), AT) | {"adapter": "t@v2-1a2b3c4d", "content": "x" * 999}]
        rows += [self.call(derived_id(3, self.task), AT - timedelta(hours=1)) | {"content": "x" * 999}]
        for row in rows:
            prompt = row.pop("prompt", "where is it?")
            row["request"] = f'{{"messages":[{{"role":"user","content":"{prompt}"}}]}}'
        for _ in range(2):
            store.insert_rows("inferences_log", rows)

    def call(self, id: str, at: datetime) -> dict[str, Any]:
        fields = {"id": id, "at": instant(at), "task": self.task, "adapter": V1, "stage": "stable", "status": "ok"}
        return fields | {"latency_ms": 100.0, "cost_usd": 0.001}

    def shown(self, metric: str, before: float, now: float, completion: str = "outcome", **more: Any) -> list[int]:
        """The examples of a move, as numbers of `CALLS`."""
        said = Drift(
            id=derived_id(4, self.task), at=AT + timedelta(hours=1), since=AT, task=self.task, adapter=V1,
            metric=metric, rule="shift", baseline=before, value=now, verdict="drift", **more,
        )  # fmt: skip
        return [self.number[id] for id in examples(self.store, said, completion)]


@pytest.fixture(scope="module")
def calls(store: Store) -> Calls:
    """The calls of one task."""
    return Calls(store)


def test_the_far_end_of_what_moved_comes_first(calls: Calls) -> None:
    """Longest or shortest by the direction, slowest answers without errors, dearest; five at most, each once."""
    assert calls.shown("answer_length", 10, 50)[:2] == [1, 3]
    assert calls.shown("answer_length", 50, 10)[:2] == [7, 0], "an error has no short answer"
    assert calls.shown("prompt_length", 10, 50)[0] == 7
    assert calls.shown("latency", 100, 500)[:3] == [5, 1, 3], "neither errors nor what a client broke off"
    assert calls.shown("cost", 0.001, 0.1)[0] == 2
    found = calls.shown("answer_topics", 0, 0)
    assert len(set(found)) == len(found) == 5


def test_only_what_the_metric_counts_is_shown(calls: Calls) -> None:
    """Refusing, unsure and failed calls, and texts with the term that has become commoner."""
    assert calls.shown("refusals", 0.01, 0.2) == [2]
    assert calls.shown("uncertainty", 0.01, 0.2) == [3]
    assert set(calls.shown("errors", 0.01, 0.2)) == {4, 5}
    top = [Moved(label="kündigung", before=0, now=0.1), Moved(label="where", before=0.9, now=0.8)]
    assert calls.shown("prompt_terms", 0, 0, side="input", top=top) == [7]


def test_scores_and_feedback_show_what_they_spoke_of(calls: Calls) -> None:
    """Lowest scored first; thumbs down, also for an answer of an earlier hour; a check's failures."""
    ids = list(calls.number)
    scores = [("pointwise", "helpful.v1", 0, 0.9), ("pointwise", "helpful.v1", 1, 0.2), ("check", "valid", 3, 0.0)]
    calls.store.insert_rows(
        "scores_log",
        [
            {"id": derived_id(5, ids[number], kind), "at": instant(AT), "task": calls.task, "adapter": V1}
            | {"target_id": ids[number], "target": "inference", "kind": kind, "rubric": rubric, "score": score}
            for kind, rubric, number, score in scores
        ],
    )
    earlier = derived_id(3, calls.task)
    calls.number[earlier] = 99
    thumbs = [("thumb", ids[0], 1.0), ("thumb", ids[2], 0.0), ("thumb", earlier, 0.0), ("outcome", ids[1], 0.0)]
    calls.store.insert_rows(
        "feedback_log",
        [
            {"id": derived_id(6, id, kind), "at": instant(AT), "task": calls.task, "inference_id": id}
            | {"kind": kind, "number": number}
            for kind, id, number in thumbs
        ],
    )
    assert calls.shown("judge_score", 0.9, 0.5) == [1, 0]
    assert calls.shown("judge_score:j:helpful.v1#1", 0.5, 0.9) == [0, 1]
    assert calls.shown("satisfaction", 0.9, 0.5) == [2, 99]
    assert calls.shown("satisfaction", 0.5, 0.9) == [0]
    assert calls.shown("completion", 0.9, 0.5) == [1]
    assert calls.shown("completion", 0.9, 0.5, completion="valid") == [3]

"""Hourly rollups on a real engine: exact at any moment, whatever was redelivered, late or expired."""

from __future__ import annotations

import math
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store, beside, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clickhouse.rollup import note_late, roll
from ratchet.schemas.rows import instant

HOURS = ("2026-11-01 09:00:00", "2026-11-01 10:00:00", "2026-11-02 00:00:00")


@pytest.fixture(scope="module")
def store(clickhouse: str) -> Iterator[Store]:
    """A migrated store."""
    with connect(clickhouse) as opened:
        migrate(opened)
        yield opened


def new_task() -> str:
    """A task of the test's own."""
    return f"t-{uuid.uuid4().hex[:12]}"


def inference(number: int, task: str) -> dict[str, Any]:
    """The ``number``th of a fixed set of events, over three hours, two adapters and every status."""
    return {
        "id": str(uuid.UUID(int=number + 1)),
        "at": f"{HOURS[number % 3][:13]}:{number % 60:02}:00.000001",
        "task": task,
        "adapter": f"{task}@v{1 + number % 2}-1a2b3c4d",
        "stage": "stable",
        "status": ("ok", "ok", "error", "timeout", "cancelled")[number % 5],
        "content": "é" * (number * 7 % 40),
        "latency_ms": 10.0 * number,
        "prompt_tokens": number,
        "completion_tokens": 2 * number,
        "cost_usd": None if number % 2 else 0.25,
    }


def counted(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What the view should say, counted in Python."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["adapter"], f"{row['at'][:13]}:00:00"].append(row)
    found = {}
    for key, of_hour in groups.items():
        lengths = [len(row["content"]) for row in of_hour]
        costs = [row["cost_usd"] for row in of_hour if row["cost_usd"] is not None]
        bins: dict[int, int] = defaultdict(int)
        for length in lengths:
            bins[length.bit_length()] += 1
        found[key] = (
            len(of_hour),
            sum(row["status"] in ("error", "timeout") for row in of_hour),
            sum(row["status"] == "timeout" for row in of_hour),
            sum(row["status"] == "cancelled" for row in of_hour),
            sum(row["prompt_tokens"] for row in of_hour),
            sum(row["completion_tokens"] for row in of_hour),
            sum(costs) if costs else None,
            sum(lengths),
            sum(length**2 for length in lengths),
            dict(bins),
        )
    return found


HOURLY = (
    "SELECT adapter, toString(hour) AS hour, (n, errors, timeouts, cancelled, prompt_tokens, completion_tokens,"
    " cost_usd, characters, characters_squares, length_bins) AS said FROM ratchet.hourly WHERE task = {task:String}"
)


def said(store: Store, task: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What the view says."""
    return {(row["adapter"], row["hour"]): tuple(row["said"]) for row in store.query_sql(HOURLY, {"task": task})}


DRIFT = (
    "SELECT adapter, toString(hour) AS hour, (answers, answer_characters, prompts, timed, latency_total, priced,"
    " arraySum(mapValues(answer_bins)), arraySum(mapValues(latency_bins)), arraySum(mapValues(cost_bins))) AS said"
    " FROM ratchet.hourly WHERE task = {task:String}"
)
TERMS = (
    "SELECT adapter, toString(hour) AS hour, (texts, terms) AS said"
    " FROM ratchet.hourly_terms WHERE task = {task:String} AND side = 'output'"
)


def of_drift(store: Store, task: str) -> list[dict[tuple[str, str], tuple[Any, ...]]]:
    """What the views say that drift alone reads: sums, and answers with their terms."""
    return [
        {(row["adapter"], row["hour"]): tuple(row["said"]) for row in store.query_sql(sql, {"task": task})}
        for sql in (DRIFT, TERMS)
    ]


def drift_counted(rows: list[dict[str, Any]]) -> list[dict[tuple[str, str], tuple[Any, ...]]]:
    """The same, counted in Python; every text here is one word."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0] * 6)
    words: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        key = row["adapter"], f"{row['at'][:13]}:00:00"
        answer, timed = row["status"] == "ok", row["status"] in ("ok", "timeout")
        added = (answer, answer * len(row["content"]), 1, timed, timed * row["latency_ms"], row["cost_usd"] is not None)
        sums[key] = [one + other for one, other in zip(sums[key], added, strict=True)]
        if answer:
            words[key][row["content"]] += 1
    terms = {
        key: (sum(of.values()), {word: n for word, n in of.items() if len(word) >= 2}) for key, of in words.items()
    }
    return [{key: (*one, one[0], one[3], one[5]) for key, one in sums.items()}, terms]


STEP = st.one_of(st.just("roll"), st.lists(st.integers(0, 29), min_size=1, max_size=12))


@settings(max_examples=6, deadline=None)
@given(st.lists(STEP, min_size=2, max_size=6))
def test_hourly_is_exact_after_every_step(store: Store, steps: list[Any]) -> None:
    """Duplicates in a batch and across batches, late rows after a rollup: the view equals a count by hand."""
    task, stored = new_task(), set()
    for step in steps:
        if step == "roll":
            roll(store, 0, 0)
        else:
            store.insert_rows("ratchet.inferences_log", [inference(number, task) for number in step])
            stored |= set(step)
        assert said(store, task) == counted([inference(number, task) for number in stored])
        assert of_drift(store, task) == drift_counted([inference(number, task) for number in stored])


def open_hours(store: Store, task: str) -> int:
    """How many of a task's hours are counted live."""
    (row,) = store.query_sql("SELECT count() AS n FROM ratchet.hours_open WHERE task = {task:String}", {"task": task})
    return int(row["n"])


def test_hours_rolled_up_before_drift_s_columns_get_them(clickhouse: str, tmp_path: Path) -> None:
    """Hours of the release before are counted anew; those whose rows are gone keep the sums that they had."""
    older = Path(str(resources.files("ratchet.infra.clickhouse.migrations")))
    for number in range(1, 7):
        (file,) = older.glob(f"{number:04}_*.sql")
        (tmp_path / file.name).write_text(file.read_text())
    with connect(beside(clickhouse, f"older_{uuid.uuid4().hex[:8]}")) as store:
        migrate(store, tmp_path)
        rows = [inference(number, "t") for number in range(0, 30)]
        store.insert_rows("inferences_log", rows)
        for row in store.query("hours_to_roll", settled_ms=0, most=10):
            of = {"task": "t", "hours": row["hours"], "upto": row["upto"]}
            store.execute("roll_inferences", **of)
            store.execute("hours_rolled", source="inferences", live_ms=0, **of)
        store.command(f"DELETE FROM inferences_log WHERE at < '{HOURS[1]}'")
        assert "0007_drift" in migrate(store)
        for _ in range(2):
            asked = "SELECT hour, sum(n) AS n, sum(answers) AS answers FROM hourly GROUP BY hour ORDER BY hour"
            found = [(row["n"], row["answers"]) for row in store.query_sql(asked)]
            assert found == [(10, 0), (10, 4), (10, 4)]
            roll(store, 0, 0)


def test_a_quiet_hour_is_rolled_up_once_and_a_busy_one_is_not(store: Store) -> None:
    """Within the settling time nothing is rolled; after a rollup readers count live for a moment more."""
    task = new_task()
    store.insert_rows("ratchet.inferences_log", [inference(number, task) for number in range(3)])
    roll(store, settled_s=3600)
    rolled = "SELECT count() AS n FROM ratchet.hourly_log WHERE task = {task:String}"
    assert store.query_sql(rolled, {"task": task}) == [{"n": 0}]
    roll(store, settled_s=0, live_s=3600)
    assert store.query_sql(rolled, {"task": task}) == [{"n": 3}]
    assert open_hours(store, task) == 3, "counted live though written down"
    assert said(store, task) == counted([inference(number, task) for number in range(3)])
    other = new_task()
    store.insert_rows("ratchet.inferences_log", [inference(number, other) for number in range(3)])
    roll(store, 0, 0)
    assert open_hours(store, other) == 0
    assert said(store, other) == counted([inference(number, other) for number in range(3)])
    assert roll(store, 0, 0) == 0, "nothing is left to do"


def test_latency_quantiles_are_the_rolled_hour_s(store: Store) -> None:
    """The median and P95 of a rolled hour are close to the exact ones, and the same as live."""
    task = new_task()
    rows = [inference(3 * number, task) | {"adapter": "base", "latency_ms": float(number)} for number in range(1, 101)]
    store.insert_rows("ratchet.inferences_log", rows)
    asked = "SELECT latency_p50_ms AS p50, latency_p95_ms AS p95 FROM ratchet.hourly WHERE task = {task:String}"
    live = store.query_sql(asked, {"task": task})
    roll(store, 0, 0)
    (rolled,) = store.query_sql(asked, {"task": task})
    assert live == [rolled]
    assert (rolled["p50"], rolled["p95"]) == (pytest.approx(50.5, abs=1.5), pytest.approx(95.5, abs=1.5))


def test_hourly_scores_keep_their_weights(store: Store) -> None:
    """Mean by inverse probability, abstentions apart, sums of squares for variances: live and rolled up alike."""
    task = new_task()
    scores = [(0.5, 1.0), (1.0, 0.5), (None, 0.5), (0.0, 0.25)]
    rows = [
        {
            "id": str(uuid.uuid4()),
            "at": HOURS[0],
            "task": task,
            "kind": "pointwise",
            "score": score,
            "inclusion_probability": share,
            "prompt_tokens": 10,
        }
        for score, share in scores
    ]
    asked = "SELECT * FROM ratchet.hourly_scores WHERE task = {task:String}"
    for _ in range(2):
        store.insert_rows("ratchet.scores_log", rows)
    for _ in range(2):
        (row,) = store.query_sql(asked, {"task": task})
        assert (row["n"], row["abstained"], row["total"], row["squares"]) == (4, 1, 1.5, 1.25)
        assert (row["weights"], row["weights_squares"]) == (7.0, 21.0)
        assert (row["weighted_total"], row["weighted_squares"]) == (2.5, 2.25)
        assert row["mean_score"] == pytest.approx(2.5 / 7)
        assert row["prompt_tokens"] == 40
        roll(store, 0, 0)
    nothing = new_task()
    store.insert_rows("ratchet.scores_log", [rows[2] | {"task": nothing}])
    (row,) = store.query_sql(asked, {"task": nothing})
    assert math.isnan(row["mean_score"])


def test_hourly_feedback_has_satisfaction_and_completion(store: Store) -> None:
    """Thumbs, ratings and outcomes by the hour; a comment counts and has no number."""
    task = new_task()
    said_ = [("thumb", 1.0), ("thumb", 0.0), ("thumb", 1.0), ("rating", 0.75), ("outcome", 1.0), ("comment", None)]
    rows = [
        {"id": str(uuid.uuid4()), "at": HOURS[1], "task": task, "kind": kind, "number": number}
        for kind, number in said_
    ]
    for _ in range(2):
        store.insert_rows("ratchet.feedback_log", rows)
        found = store.query_sql(
            "SELECT kind, n, numbers, positive, total, squares FROM ratchet.hourly_feedback WHERE task = {task:String}",
            {"task": task},
        )
        assert {row.pop("kind"): tuple(row.values()) for row in found} == {
            "thumb": (3, 3, 2, 2.0, 2.0),
            "rating": (1, 1, 1, 0.75, 0.5625),
            "outcome": (1, 1, 1, 1.0, 1.0),
            "comment": (1, 0, 0, 0.0, 0.0),
        }
        roll(store, 0, 0)


@pytest.mark.parametrize("first", ["feedback", "inference"])
def test_feedback_counts_for_its_adapter_in_whichever_order_they_come(store: Store, first: str) -> None:
    """An answer stored after its feedback's hour was rolled up has it rolled up anew, once."""
    task, at = new_task(), clock.now().replace(microsecond=0) - timedelta(hours=3)
    answer = inference(0, task) | {"id": str(uuid.uuid4()), "at": instant(at), "adapter": f"{task}@v1-1a2b3c4d"}
    thumb = {
        "id": str(uuid.uuid4()), "at": instant(at + timedelta(minutes=1)), "task": task, "kind": "thumb",
        "inference_id": answer["id"], "number": 1.0, "source": "http",
    }  # fmt: skip
    asked = "SELECT adapter_numbers AS n, numbers FROM ratchet.hourly_feedback WHERE task = {task:String}"
    tables = {"feedback": ("feedback_log", thumb), "inference": ("inferences_log", answer)}
    order = [first, *({*tables} - {first})]
    before = clock.now() - timedelta(minutes=1)
    for number, name in enumerate(order, 1):
        # said, not left to a clock that may be set back in between
        stored = {"ingested_at": instant(before + timedelta(seconds=10 * number))}
        store.insert_rows(tables[name][0], [tables[name][1] | stored])
        roll(store, 0, 0)
    known = store.query_sql(asked, {"task": task})[0]["n"].get(answer["adapter"], 0)
    assert known == (first == "inference")
    notes = "SELECT count() AS n FROM ratchet.hours_log WHERE task = {task:String} AND source = 'feedback'"
    (noted,) = store.query_sql(notes, {"task": task})
    note_late(store, before)
    (again,) = store.query_sql(notes, {"task": task})
    assert (again != noted) == (first == "feedback")
    roll(store, 0, 0)
    assert store.query_sql(asked, {"task": task}) == [{"n": {answer["adapter"]: 1}, "numbers": 1}]
    note_late(store, clock.now() + timedelta(minutes=1))
    assert roll(store, 0, 0) == 0, "nothing came since"


def test_a_rolled_hour_outlasts_its_rows(store: Store) -> None:
    """Rows that are gone take nothing with them, not even where a late one makes the hour be counted anew."""
    task = new_task()
    rows = [inference(number, task) for number in range(0, 30, 3)]
    store.insert_rows("ratchet.inferences_log", rows)
    roll(store, 0, 0)
    store.command(f"DELETE FROM ratchet.inferences_log WHERE task = '{task}'")
    store.insert_rows("ratchet.inferences_log", [inference(30, task), inference(0, task)])
    assert open_hours(store, task) == 1
    assert said(store, task) == counted(rows)
    roll(store, 0, 0)
    assert open_hours(store, task) == 0
    assert said(store, task) == counted(rows)

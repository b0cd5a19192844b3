"""Retention on a real engine: what is set expires, and nothing else does."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.infra.clickhouse import retention
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.ddl import Cluster, literal
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clickhouse.rollup import roll
from ratchet.schemas.errors import StoreError
from ratchet.schemas.policies import Retention

NOTHING = retention.clauses(Retention(), {})
DAYS_OLD = (0, 2, 5, 30)


@pytest.fixture
def store(clickhouse: str) -> Iterator[Store]:
    """A migrated store, whose tables keep everything afterwards."""
    with connect(clickhouse) as opened:
        migrate(opened)
        yield opened
        retention.apply(opened, NOTHING)


def fill(store: Store, table: str) -> str:
    """A new task with a row of each age; returns its name."""
    task, now = f"t-{uuid.uuid4().hex[:12]}", datetime.now(UTC)
    rows = [{"id": str(uuid.uuid4()), "task": task, "at": now - timedelta(days=days, minutes=1)} for days in DAYS_OLD]
    store.insert_rows(f"ratchet.{table}", rows)
    return task


def left(store: Store, table: str, task: str) -> int:
    """How many of the task's rows are there once ClickHouse has merged."""
    store.command(f"OPTIMIZE TABLE ratchet.{table} FINAL")
    asked = f"SELECT count() AS n FROM ratchet.{table} WHERE task = {{task:String}}"
    (row,) = store.query_sql(asked, {"task": task})
    return int(row["n"])


def test_rows_expire_by_task_and_the_rollups_stay(store: Store) -> None:
    """A task's own retention, the common one, and one that keeps; `hourly` counts as before."""
    own, common, kept = (fill(store, "inferences_log") for _ in range(3))
    assert [left(store, "inferences_log", task) for task in (own, common, kept)] == [4, 4, 4], "unset is for ever"
    roll(store, 0, 0)
    wanted = retention.clauses(
        Retention(inferences="10d"), {own: Retention(inferences="72h"), kept: Retention(inferences="forever")}
    )
    assert len(retention.pending(store, wanted)) == 1
    assert retention.apply(store, wanted)
    assert [left(store, "inferences_log", task) for task in (own, common, kept)] == [2, 3, 4]
    hourly = "SELECT sum(n) AS n FROM ratchet.hourly WHERE task = {task:String}"
    for task in (own, common, kept):
        assert store.query_sql(hourly, {"task": task}) == [{"n": 4}]


def test_a_setting_s_change_is_the_ttl_s(store: Store) -> None:
    """The same settings again change nothing; longer, shorter and none at all do."""
    task = fill(store, "feedback_log")
    for keep, stay in (("60d", 4), ("20d", 3), ("4d", 2)):
        wanted = retention.clauses(Retention(feedback=keep), {})
        assert retention.pending(store, wanted) == [f"feedback_log: {wanted['feedback_log']}"]
        assert retention.apply(store, wanted)
        assert retention.pending(store, wanted) == retention.apply(store, wanted) == []
        assert left(store, "feedback_log", task) == stay
    assert retention.pending(store, NOTHING) == ["feedback_log: kept for ever"]
    assert retention.apply(store, NOTHING)
    assert retention.pending(store, NOTHING) == []
    again = fill(store, "feedback_log")
    assert left(store, "feedback_log", again) == 4


def test_a_database_that_is_no_cluster_s_is_said_so(store: Store) -> None:
    """The setting alone turns no tables into replicated ones."""
    with pytest.raises(StoreError, match=r"no table inferences_log_local; .* made without clickhouse_cluster"):
        retention.pending(store, NOTHING, Cluster("main", "ratchet"))


def test_every_kind_can_have_one(store: Store) -> None:
    """With several rules each; ClickHouse shows them as they were asked for."""
    of_task = Retention(**dict.fromkeys(Retention.model_fields, "12h"))
    common = Retention(**dict.fromkeys(Retention.model_fields, "90d"))
    wanted = retention.clauses(common, {"a": of_task, "b-1": of_task, "c": Retention(pairs="forever")})
    assert len(retention.apply(store, wanted)) == len(Retention.model_fields)
    assert retention.pending(store, wanted) == []


def test_a_literal_is_read_back_as_it_was(store: Store) -> None:
    """By the engine's own parser."""
    for text in ("a'b", "\\", "\\'", "'; DROP TABLE x; --", "é\n\t", ""):
        assert store.query_sql(f"SELECT {literal(text)} AS text") == [{"text": text}]

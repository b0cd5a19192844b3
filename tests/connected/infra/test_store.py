"""The one ClickHouse client and the migrations, on a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest

from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate, pending, read_migrations
from ratchet.infra.embedded.ports import free_port
from ratchet.schemas.errors import SettingsError, StoreError

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, UTC)
KEY = UUID("018f0000-0000-7000-8000-000000000001")


@pytest.fixture
def store(clickhouse: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store whose database is the test's own and does not exist yet."""
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)
    with connect(clickhouse.removesuffix("ratchet") + name) as store:
        yield store
        store.command(f"DROP DATABASE IF EXISTS `{name}`", use_database=False)


@pytest.fixture
def table(store: Store) -> str:
    """A table with the kinds of columns that events have."""
    store.command(f"CREATE DATABASE {store.database}", use_database=False)
    store.command(
        "CREATE TABLE events (id UUID, at DateTime64(6, 'UTC'), task LowCardinality(String), tags Map(String, String),"
        " score Nullable(Float64), ok Bool DEFAULT true) ENGINE = MergeTree ORDER BY at"
    )
    return "events"


def test_rows_go_in_and_come_out_with_their_types(store: Store, table: str) -> None:
    """Times come back aware and in UTC, whatever zone they went in with; a missing column gets its default."""
    berlin = NOON.astimezone(timezone(timedelta(hours=1)))
    assert store.insert_rows(table, [{"id": KEY, "at": berlin, "task": "t", "tags": {"é": "'"}, "score": None}]) == 1
    assert store.query_sql("SELECT * FROM events WHERE task = {task:String}", {"task": "t"}) == [
        {"id": KEY, "at": NOON, "task": "t", "tags": {"é": "'"}, "score": None, "ok": True}
    ]


def test_nothing_to_insert_is_no_request(store: Store) -> None:
    """Not even the database exists."""
    assert store.insert_rows("events", []) == store.insert_json("events", b"") == 0


@pytest.mark.parametrize(
    "row",
    [{"id": "no uuid"}, {"nonsense": 1}, {"score": "high"}, {"at": object()}],
    ids=["value", "column", "type", "object"],
)
def test_a_bad_row_is_refused_whole(store: Store, table: str, row: dict[str, object]) -> None:
    """The good row before it is not stored either, and the error names the table."""
    with pytest.raises(StoreError, match="events"):
        store.insert_rows(table, [{"id": KEY, "at": NOON}, row])
    assert store.query_sql("SELECT count() AS n FROM events") == [{"n": 0}]


def test_unknown_fields_can_be_left_out_on_purpose(store: Store, table: str) -> None:
    """For raw bytes whose objects have more than the table."""
    lines = b'{"task": "a", "more": {"x": 1}}\n{"task": "b"}'
    assert store.insert_json(table, lines, skip_unknown=True) == 2
    with pytest.raises(StoreError, match="more"):
        store.insert_json(table, lines)


def test_a_store_serves_several_threads(store: Store, table: str) -> None:
    """Inserts and questions at once, none lost and none mixed up."""

    def work(n: int) -> int:
        store.insert_rows(table, [{"task": f"task {n}", "score": n}] * 10)
        return int(store.query_sql("SELECT {n:UInt32} AS n", {"n": n})[0]["n"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(40))) == list(range(40))
    (row,) = store.query_sql("SELECT count() AS n, sum(score) AS total FROM events")
    assert row == {"n": 400, "total": 10 * sum(range(40))}


async def test_coroutines_ask_through_a_thread(store: Store, table: str) -> None:
    """The documented way to use the store without blocking the event loop."""
    answers = await asyncio.gather(*(asyncio.to_thread(store.query_sql, f"SELECT {n} AS n") for n in range(8)))
    assert [rows[0]["n"] for rows in answers] == list(range(8))


def test_parameters_must_be_exactly_the_question_s(store: Store) -> None:
    """A forgotten or misspelt one never becomes text formatted into SQL."""
    with pytest.raises(StoreError, match=r"\['a'\], not \['b'\]"):
        store.query_sql("SELECT {a:Int8}, '%(b)s'", {"b": 1})


def test_an_unknown_question_is_named(store: Store) -> None:
    """Before anything is sent."""
    with pytest.raises(StoreError, match="no_such_question"):
        store.query("no_such_question")


def test_a_store_that_is_away_says_where() -> None:
    """Address in the sentence, password not."""
    port = free_port()
    with pytest.raises(StoreError, match=f"connect to 127.0.0.1:{port}") as caught:
        connect(f"http://user:secret@127.0.0.1:{port}/ratchet")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("dsn", ["", "clickhouse://x/y", "http:///ratchet", "127.0.0.1:8123"])
def test_a_wrong_dsn_is_refused(dsn: str) -> None:
    """With what is allowed."""
    with pytest.raises(SettingsError, match="allowed is http"):
        connect(dsn)


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text)
    return folder


def test_migrations_are_applied_once_and_in_order(store: Store, tmp_path: Path) -> None:
    """The second call finds nothing to do; a new file alone is applied later."""
    folder = _write(
        tmp_path, m="", **{"0001_first": "CREATE TABLE a (x UInt8) ENGINE = Memory; -- b;\nINSERT INTO a VALUES (1);"}
    )
    (folder / "m.sql").unlink()
    assert pending(store, folder) == ["0001_first"], "also where there is no database yet"
    assert migrate(store, folder) == ["0001_first"]
    assert migrate(store, folder) == []
    _write(folder, **{"0002_second": "INSERT INTO a VALUES (2)"})
    assert migrate(store, folder) == ["0002_second"]
    assert store.query_sql("SELECT x FROM a ORDER BY x") == [{"x": 1}, {"x": 2}]


def test_a_changed_migration_is_refused(store: Store, tmp_path: Path) -> None:
    """Whether a statement was changed, added or taken away."""
    text = "CREATE TABLE a (x UInt8) ENGINE = Memory; INSERT INTO a VALUES (1)"
    assert migrate(store, _write(tmp_path, **{"0001_first": text})) == ["0001_first"]
    for changed in (text.replace("(1)", "(2)"), text + "; SELECT 1", text.split(";")[0]):
        with pytest.raises(StoreError, match="0001_first was changed"):
            migrate(store, _write(tmp_path, **{"0001_first": changed}))


def test_a_migration_that_failed_goes_on_where_it_stopped(store: Store, tmp_path: Path) -> None:
    """What was applied is not applied again, and the repaired rest is."""
    first = "CREATE TABLE a (x UInt8) ENGINE = Memory;"
    with pytest.raises(StoreError):
        migrate(store, _write(tmp_path, **{"0001_first": f"{first} INSERT INTO nowhere VALUES (1)"}))
    repaired = _write(tmp_path, **{"0001_first": f"{first} INSERT INTO a VALUES (1)"})
    assert pending(store, repaired) == ["0001_first"]
    assert migrate(store, repaired) == ["0001_first"]
    assert pending(store, repaired) == []
    assert store.query_sql("SELECT x FROM a") == [{"x": 1}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"first": "SELECT 1"}, "NNNN_words"),
        ({"0001_a": "SELECT 1", "0001_b": "SELECT 1"}, "taken by 0001_a"),
        ({"0001_a": "SELECT 'x"}, "not closed"),
    ],
)
def test_malformed_migrations_are_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """Before anything is applied."""
    with pytest.raises(StoreError, match=message):
        read_migrations(_write(tmp_path, **files))


def test_the_migrations_that_ship_apply(clickhouse: str) -> None:
    """To an empty ClickHouse, twice."""
    with connect(clickhouse) as store:
        migrate(store)
        assert migrate(store) == []

"""The two ways from an event to its stored row, the event's own bytes and the built row, end in the same row."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from ratchet.consumers.rules.batch import Batch
from ratchet.consumers.rules.decode import line
from ratchet.consumers.writer import Writer
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.decoding import EVENTS, parse
from ratchet.schemas.publish import HERE
from ratchet.schemas.rows import row

GOLDEN = HERE.parent / "golden"


@pytest.fixture
def store(clickhouse: str) -> Iterator[Store]:
    """A migrated store."""
    with connect(clickhouse) as opened:
        migrate(opened)
        yield opened


def stored(store: Store, table: str, task: str) -> list[dict[str, Any]]:
    """What ClickHouse keeps, less the moment it did, JSON columns decoded; an explicit null is as good as none."""
    rows = store.query_sql(f"SELECT * FROM ratchet.{table} WHERE task = {{task:String}} ORDER BY id", {"task": task})
    for one in rows:
        del one["ingested_at"]
        for column in ("request", "response"):
            value = orjson.loads(one[column]) if one[column] else {}
            one[column] = {key: item for key, item in value.items() if item is not None}
    return rows


def golden(name: str, **changes: object) -> dict[str, Any]:
    """A golden message of a task of its own; None leaves a field out."""
    value = orjson.loads((GOLDEN / f"{name}.json").read_bytes()) | {"task": f"t-{uuid.uuid4().hex[:12]}"} | changes
    return {key: item for key, item in value.items() if item is not None}


@pytest.mark.parametrize("name", ["inference.v1", "shadow.v1"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"response": None, "status": "error", "error": 'broken "quote" \\ and \n line'},
        {"at": "2026-11-01T12:00:00+02:00"},
        {"at": "2026-11-01T12:00:00.1234567Z"},
        {"conversation_id": None, "user": None, "ttft_ms": None, "tags": None, "stream": None},
        {"response": {"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}},
        {"response": {"content": "Zürich 東京 \U0001f600 \u2028 \t"}},
        {"tags": {"a": "1", "b": ""}, "stream": True, "prompt_tokens": "12", "latency_ms": 3},
        {"tenant": None},
        {"at": 1_790_000_000.5},
    ],
)
def test_own_bytes_and_built_row_are_stored_alike(store: Store, name: str, changes: dict[str, Any]) -> None:
    """Whatever an event leaves out, escapes or writes unusually, the column values are those of `row`."""
    value = golden(name, **changes)
    head = {"id": value.pop("id"), "at": value.pop("at")}
    raw = orjson.dumps(head | value)
    found = line(raw, (name,))
    assert found is not None
    table, as_it_came = found
    built_anew = "tenant" in changes or not isinstance(changes.get("at", ""), str)
    assert as_it_came.startswith(raw[:-1]) != built_anew
    store.insert_json(table, as_it_came)
    one = stored(store, table, value["task"])
    store.command(f"TRUNCATE TABLE ratchet.{table}")
    built = row(parse(EVENTS[name], raw))
    assert built is not None
    store.insert_rows(built[0], [built[1]])
    assert one == stored(store, table, value["task"])
    assert len(one) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-1] + b',"prompt_tokens":5}',
        lambda raw: raw[:-1].replace(b'"prompt_tokens":', b'"prompt_tokens":5.0,"_":', 1) + b"}",
        lambda raw: raw[:-1] + b',"cost_usd":"0.5","cost_usd":0.25}',
        lambda raw: raw.replace(b'"stream":true', b'"stream":"no"'),
    ],
    ids=["a field twice", "a whole number with a point", "a field twice, quoted", "a word for false"],
)
def test_what_clickhouse_refuses_and_json_allows_is_stored_all_the_same(
    store: Store, spoil: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """One odd record stops no batch: its rows are built anew, and every event of the batch is there once."""
    caplog.set_level(logging.INFO)
    task = f"t-{uuid.uuid4().hex[:12]}"
    batch = Batch()
    for number in range(3):
        value = golden("inference.v1", task=task)
        value["id"] = value["id"][:-1] + str(number)
        head = {"id": value.pop("id"), "at": value.pop("at")}
        raw = orjson.dumps(head | value)
        if number == 1:
            odd = orjson.dumps(head | {key: item for key, item in value.items() if key != "cost_usd"})
            raw = spoil(odd).replace(b',"_":' + str(value.get("prompt_tokens", 0)).encode(), b"")
        found = line(raw, ("inference.v1",))
        assert found is not None
        batch.add(*found)
        batch.passed(("ratchet.inference", 0), number, 0.0)
    writer = Writer(store, MemoryPublisher(), threading.Event())
    writer.submit(batch)
    assert writer.wait(30)
    writer.close()
    assert writer.stored() == {("ratchet.inference", 0): 3}
    assert len(stored(store, "inferences", task)) == 3
    assert "rows are built anew" in caplog.text

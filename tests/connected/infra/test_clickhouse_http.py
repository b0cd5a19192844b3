"""The embedded ClickHouse's HTTP interface, asked by the real clickhouse-connect client."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import clickhouse_connect
import lz4.frame
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

TYPES = """
CREATE OR REPLACE TABLE kinds
(
    id UInt64, name String, low LowCardinality(Nullable(String)), tags Map(String, String), list Array(Int16),
    at DateTime64(3, 'UTC'), key UUID, kind Enum8('a' = 1, 'b' = 2), price Decimal(10, 2), flag Bool,
    maybe Nullable(Float64)
)
ENGINE = MergeTree ORDER BY id
"""


@pytest.fixture(scope="module")
def client(clickhouse: str) -> Iterator[Any]:
    """A client as any program would make it, in a database of this module's own."""
    port = urlsplit(clickhouse).port
    maker = clickhouse_connect.get_client(host="127.0.0.1", port=port)
    maker.command("CREATE DATABASE IF NOT EXISTS http_tests")
    client = clickhouse_connect.get_client(host="127.0.0.1", port=port, database="http_tests")
    yield client
    client.close()
    maker.close()


def raw(
    dsn: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP exchange without a ClickHouse client."""
    where = urlsplit(dsn)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_commands_return_their_value(client: Any) -> None:
    """DDL gives a summary, a one-value SELECT its value, a wider one a list, an empty one an empty string."""
    assert client.ping()
    assert client.command("SELECT 41 + 1") == 42
    assert client.command("SELECT 'a', 'b'") == ["a", "b"]
    assert client.command("SELECT 1 WHERE 0") == ""
    assert client.command("CREATE TABLE IF NOT EXISTS empty (x UInt8) ENGINE = Memory").query_id()
    assert client.command("INSERT INTO empty VALUES", data="(1), (2)").written_rows == 2


def test_parameters_are_bound_by_the_server(client: Any) -> None:
    """Text with everything in it that could break out of a string comes back as it was."""
    nasty = 'it\'s \\ "quoted"\n\t`é` {x:String} -- ; DROP'
    found = client.query(
        "SELECT {s:String}, {l:Array(String)}, {n:Nullable(Int8)}, {i:Identifier} FROM (SELECT 7 AS seven)",
        parameters={"s": nasty, "l": [nasty, ""], "n": None, "i": "seven"},
    )
    assert found.result_rows == [(nasty, [nasty, ""], None, 7)]


def test_long_parameters_travel_as_a_form(client: Any) -> None:
    """What does not fit into a URL is sent as multipart/form-data and bound all the same."""
    ids = list(range(20_000))
    assert client.query("SELECT length({ids:Array(UInt32)})", parameters={"ids": ids}).result_rows == [(20_000,)]


def test_native_inserts_of_every_kind_of_column_come_back(client: Any) -> None:
    """Rows written in the Native format are read in it unchanged."""
    client.command(TYPES)
    now, key = "2026-01-02 03:04:05.678", "018f0000-0000-7000-8000-000000000001"
    client.command(
        f"INSERT INTO kinds VALUES (1, 'é', NULL, {{'k': 'v'}}, [-1], '{now}', '{key}', 'b', 1.25, true, NULL)"
    )
    (row,) = client.query("SELECT * FROM kinds").result_rows
    done = client.insert("kinds", [[2, *row[1:]]])
    assert done.written_rows == 1
    assert client.query("SELECT * EXCEPT id FROM kinds WHERE id = 2").result_rows == [row[1:]]


@pytest.mark.parametrize("codec", ["lz4", "zstd", "gzip", False])
def test_every_compression_works_both_ways(clickhouse: str, codec: str | bool) -> None:
    """The client compresses its insert and asks for compressed answers."""
    port = urlsplit(clickhouse).port
    client = clickhouse_connect.get_client(host="127.0.0.1", port=port, database="default", compress=codec)
    table = f"packed_{codec}"
    client.command(f"CREATE OR REPLACE TABLE {table} (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    rows = [[n, f"row {n}"] for n in range(5_000)]
    client.insert(table, rows, column_names=["n", "s"])
    assert client.query(f"SELECT * FROM {table} ORDER BY n").result_rows == [tuple(row) for row in rows]
    client.close()


@pytest.mark.parametrize("codec", [None, "lz4", "zstd", "gzip", "deflate"])
def test_raw_inserts_of_json_lines(client: Any, codec: str | None) -> None:
    """Bytes of JSONEachRow go in as they are, or compressed by the caller."""
    import zlib

    from backports import zstd

    client.command("CREATE OR REPLACE TABLE lines (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    data = b'{"a": 1, "s": "FORMAT"}\n{"a": 2, "s": "\xc3\xa9;"}\n'
    packers = {"lz4": lz4.frame.compress, "zstd": zstd.compress, "gzip": gzip.compress, "deflate": zlib.compress}
    packed = packers[codec](data) if codec else data
    done = client.raw_insert("lines", ["a", "s"], packed, fmt="JSONEachRow", compression=codec)
    assert done.written_rows == 2
    assert client.query("SELECT * FROM lines ORDER BY a").result_rows == [(1, "FORMAT"), (2, "é;")]


def test_data_frames_go_in_and_come_out(client: Any) -> None:
    """Both by pandas and by Arrow."""
    frame = client.query_df("SELECT number AS n, toString(number) AS s FROM numbers(1000)")
    client.command("CREATE OR REPLACE TABLE frames (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    client.insert_df("frames", frame)
    again = client.query_df("SELECT * FROM frames ORDER BY n")
    assert again.equals(frame)
    assert client.query_arrow("SELECT * FROM frames").num_rows == 1000


def test_rows_are_streamed(client: Any) -> None:
    """A result of several blocks arrives whole, and the handle it came from is usable again."""
    sql = "SELECT number, toString(number) FROM numbers(400000)"
    with client.query_rows_stream(sql) as rows:
        assert sum(number for number, _ in rows) == 400_000 * 399_999 // 2
    with client.query_rows_stream(sql) as rows:
        assert next(iter(rows)) == (0, "0")  # and leave it there
    assert client.query("SELECT 1").result_rows == [(1,)]


def test_an_error_in_the_middle_of_a_stream_is_an_error(client: Any) -> None:
    """The status is out by then: the body says it, and the client raises."""
    # small blocks on one thread: the engine cannot reach the error before the first megabyte is out
    sql = (
        "SELECT throwIf(number = 30000, 'on purpose'), repeat('x', 1000) FROM numbers(40000)"
        " SETTINGS max_block_size = 500, max_threads = 1"
    )
    with pytest.raises(StreamFailureError, match="on purpose"), client.query_rows_stream(sql) as rows:
        for _ in rows:
            pass


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT x FROM nowhere", 60),
        ("SELEC 1", 62),
        ("SELECT throwIf(1)", 395),
        ("SELECT 1 SETTINGS nonsense = 1", 115),
    ],
)
def test_errors_carry_clickhouse_s_code(client: Any, sql: str, code: int) -> None:
    """Programs tell errors apart by it."""
    with pytest.raises(DatabaseError) as caught:
        client.query(sql)
    assert caught.value.code == code


def test_settings_apply_to_their_request_alone(client: Any) -> None:
    """Neither another request's settings nor a SET or USE of one leak into the next."""
    ask = "SELECT getSetting('max_block_size'), currentDatabase()"
    before = client.query(ask).result_rows
    assert client.query(ask, settings={"max_block_size": 77}).result_rows == [(77, "http_tests")]
    client.command("SET max_block_size = 78")
    client.command("USE system")
    assert client.query(ask).result_rows == before


def test_headers_of_an_answer(clickhouse: str) -> None:
    """Format, query id, time zone and counts, as ClickHouse names them."""
    status, headers, body = raw(clickhouse, "POST", "/?query_id=mine&default_format=JSONEachRow", b"SELECT 1 AS one")
    assert (status, body) == (200, b'{"one":1}\n')
    assert headers["x-clickhouse-format"] == "JSONEachRow"
    assert headers["x-clickhouse-query-id"] == "mine"
    assert headers["x-clickhouse-timezone"] == "UTC"
    assert "result_rows" in headers["x-clickhouse-summary"] or "result_bytes" in headers["x-clickhouse-summary"]


def test_the_query_may_be_in_the_url_and_end_in_the_body(clickhouse: str) -> None:
    """ClickHouse joins both with a line feed; GET reads and does not write."""
    assert raw(clickhouse, "POST", f"/?query={quote('SELECT 1,')}", b"2")[2] == b"1\t2\n"
    assert raw(clickhouse, "GET", f"/?query={quote('SELECT 3')}")[2] == b"3\n"
    status, headers, _ = raw(clickhouse, "GET", f"/?query={quote('CREATE DATABASE by_get')}")
    assert (status, headers["x-clickhouse-exception-code"]) == (403, "164")
    assert raw(clickhouse, "GET", "/ping")[2] == b"Ok.\n"
    assert raw(clickhouse, "GET", "/nowhere")[0] == 404


def test_web_pages_are_refused(clickhouse: str) -> None:
    """A page in a browser on this machine can reach loopback, but is not this machine's program."""
    assert raw(clickhouse, "POST", "/", b"SELECT 1", {"Origin": "https://example.org"})[0] == 403
    assert raw(clickhouse, "POST", "/", b"SELECT 1", {"Host": "rebound.example.org"})[0] == 403


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"not lz4", {"Content-Encoding": "lz4"}, "271"),
        (b"SELECT '\xff'", {}, "62"),
        (b"x", {"Content-Encoding": "y"}, "48"),
    ],
)
def test_bad_bodies_get_a_clickhouse_error(clickhouse: str, body: bytes, headers: dict[str, str], code: str) -> None:
    """Not a traceback and not a broken connection."""
    status, answer, _ = raw(clickhouse, "POST", "/", body, headers)
    assert (status in (400, 501), answer["x-clickhouse-exception-code"]) == (True, code)


async def test_the_async_client_works_too(clickhouse: str) -> None:
    """Commands, parameters, inserts, streams and errors through aiohttp."""
    where = urlsplit(clickhouse)
    client = await clickhouse_connect.get_async_client(host="127.0.0.1", port=where.port, database="default")
    try:
        await client.command("CREATE OR REPLACE TABLE by_async (n UInt64) ENGINE = MergeTree ORDER BY n")
        assert (await client.insert("by_async", [[n] for n in range(1000)], column_names=["n"])).written_rows == 1000
        await client.raw_insert("by_async", ["n"], b'{"n": 1000}', fmt="JSONEachRow")
        found = await client.query("SELECT count() FROM by_async WHERE n >= {low:UInt64}", parameters={"low": 10})
        assert found.result_rows == [(991,)]
        many = await client.query("SELECT length({ids:Array(UInt32)})", parameters={"ids": list(range(20_000))})
        assert many.result_rows == [(20_000,)]
        async with await client.query_rows_stream("SELECT number FROM numbers(300000)") as rows:
            assert sum([n async for (n,) in rows]) == 300_000 * 299_999 // 2
        with pytest.raises(DatabaseError) as caught:
            await client.query("SELECT x FROM nowhere")
        assert caught.value.code == 60
    finally:
        await client.close()

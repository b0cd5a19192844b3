"""The one ClickHouse client: `connect` gives a `Store`, the same over the embedded server and a real one.

A `Store` is synchronous and safe to use from several threads: it keeps a pool of connections
and no session. In a coroutine call it by ``await asyncio.to_thread(store.query, name, …)``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import clickhouse_connect
import orjson
import urllib3
from clickhouse_connect.driver import httputil
from clickhouse_connect.driver.compression import get_compressor
from clickhouse_connect.driver.exceptions import ClickHouseError

from ratchet.infra.clickhouse.sql import in_database, placeholders
from ratchet.schemas.errors import SettingsError, StoreError, StoreRefused

# It warns on every lost connection; the StoreError that is raised then says the same.
logging.getLogger("clickhouse_connect.driver").setLevel(logging.ERROR)

QUERIES = "ratchet.infra.clickhouse.queries"
_POOL = 16
# Imported logs span more months than the hundred partitions that one insert may touch by default.
# Into a Distributed table an insert is acknowledged once the shards have it; and no replica drops a block that
# looks like an earlier one, with it the note of which hours it touched: rows are idempotent by their sorting key.
_ANY_TIME = {"max_partitions_per_insert_block": 0, "distributed_foreground_insert": 1, "insert_deduplicate": 0}
# On a cluster a subquery's rows are sent to every shard, instead of each shard asking all others.
_CLUSTER = {"distributed_product_mode": "global"}
# A misspelt column would otherwise vanish without a word.
_STRICT = _ANY_TIME | {"input_format_skip_unknown_fields": 0}
_LENIENT = _ANY_TIME | {"input_format_skip_unknown_fields": 1}


@cache
def load_query(name: str) -> str:
    """The text of ``queries/<name>.sql``.

    Raises:
        StoreError: there is no such file.
    """
    try:
        return resources.files(QUERIES).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StoreError(f"no query is named {name!r}") from None


class Store:
    """ClickHouse, by named questions and batches of rows; every method may be called from any thread.

    Args:
        client: a clickhouse-connect client without a session, which this object then owns.
        where: host and port, for messages.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where

    @property
    def database(self) -> str:
        """The database of the DSN; it need not exist until something is asked of it."""
        return str(self._client.database)

    def query(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """Ask the question in ``queries/<name>.sql`` of this store's database; rows as dicts by column name.

        Times come back aware, in UTC.

        Raises:
            StoreError: no such question, parameters that are not exactly the question's, or
                ClickHouse refused or is away.
        """
        return self.query_sql(in_database(load_query(name), self.database), params, name=name)

    def execute(self, name: str, /, **params: Any) -> None:
        """Run the writing statement in ``queries/<name>.sql``.

        Raises:
            StoreError: as `query`.
        """
        sql = in_database(load_query(name), self.database)
        _refuse_others(name, sql, params)
        with self._boundary(name):
            self._client.command(sql, parameters=params or None)

    def query_sql(
        self, sql: str, params: Mapping[str, Any] | None = None, *, name: str = "query"
    ) -> list[dict[str, Any]]:
        """Run a SELECT given as text; parameters are bound by the server, never formatted in.

        Args:
            sql: with ``{name:Type}`` for each parameter.
            params: a value for each.
            name: what messages call it.

        Raises:
            StoreError: as `query`.
        """
        given = dict(params or {})
        _refuse_others(name, sql, given)
        with self._boundary(name):
            found = self._client.query(sql, parameters=given or None)
            return list(found.named_results())

    def insert_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert rows; a column that a row leaves out gets its default. Returns the rows written.

        Values: whatever JSON has, and datetime (naive is UTC), UUID, enum, dataclass.

        Raises:
            StoreError: an unknown column, a value of a wrong type, or ClickHouse refused or is
                away: none of the rows is acknowledged.
        """
        if not rows:
            return 0
        try:
            lines = b"\n".join(orjson.dumps(row, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC) for row in rows)
        except orjson.JSONEncodeError as error:
            raise StoreError(f"rows for {table} are not JSON: {error}") from error
        return self.insert_json(table, lines)

    def insert_json(self, table: str, lines: bytes, *, skip_unknown: bool = False) -> int:
        """Insert raw JSONEachRow bytes, one object a line; returns the rows written.

        Args:
            table: with or without its database.
            lines: UTF-8; a line feed after the last line is optional.
            skip_unknown: leave out fields that are no columns, instead of refusing the batch.

        Raises:
            StoreError: as `insert_rows`.
        """
        if not lines:
            return 0
        settings = _LENIENT if skip_unknown else _STRICT
        with self._boundary(f"insert into {table}"):
            # Compressed, the INSERT travels in the URL and the body is the data alone: three times as
            # fast into the embedded server. The client library sends as it is what it is given here.
            codec = self._client.write_compression
            compressor = get_compressor(codec)
            data = compressor.compress_block(lines) + (compressor.flush() or b"")
            done = self._client.raw_insert(table, None, data, settings=settings, fmt="JSONEachRow", compression=codec)
            return int(done.written_rows)

    def command(self, sql: str, *, use_database: bool = True) -> object:
        """Run a statement that gives no rows (or one value).

        Args:
            sql: the statement, without parameters.
            use_database: False for a statement that must run before the database exists.

        Raises:
            StoreError: ClickHouse refused or is away.
        """
        with self._boundary(sql.split("(")[0].strip()[:60]):
            result: object = self._client.command(sql, use_database=use_database)
            return result

    def ping(self) -> bool:
        """Whether ClickHouse answers now."""
        return bool(self._client.ping())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _boundary(self, doing: str) -> Iterator[None]:
        with boundary(f"{doing} at {self._where}"):
            yield


def _refuse_others(name: str, sql: str, given: Mapping[str, Any]) -> None:
    if given.keys() != (wanted := placeholders(sql)):
        raise StoreError(f"{name} takes the parameters {sorted(wanted)}, not {sorted(given)}")


@contextmanager
def boundary(doing: str) -> Iterator[None]:
    """Turn the client library's errors into `StoreError`, naming what was being done."""
    try:
        yield
    except (ClickHouseError, urllib3.exceptions.HTTPError, OSError) as error:
        answered = isinstance(error, ClickHouseError) and error.code is not None
        raise (StoreRefused if answered else StoreError)(f"ClickHouse: {doing}: {error}") from error


def connect(dsn: str, *, clustered: bool = False, timeout_s: float = 300.0, connect_timeout_s: float = 5.0) -> Store:
    """Connect to ClickHouse's HTTP interface.

    The DSN's database is used by every later statement and need not exist yet.

    Args:
        dsn: ``http://user:password@host:8123/database`` or ``https://…``.
        clustered: the tables are Distributed ones.
        timeout_s: the longest a statement may stay silent.
        connect_timeout_s: the longest a connection may take.

    Raises:
        SettingsError: not such a DSN.
        StoreError: ClickHouse is away, or refuses the user.
    """
    parts = urlsplit(dsn)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("clickhouse_dsn: allowed is http(s)://[user:password@]host[:port]/database")
    where = f"{parts.hostname}:{parts.port or (8443 if parts.scheme == 'https' else 8123)}"
    with boundary(f"connect to {where}"):
        client = clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=int(where.rsplit(":", 1)[1]),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
            connect_timeout=connect_timeout_s,
            send_receive_timeout=timeout_s,
            # one session would allow one statement at a time
            autogenerate_session_id=False,
            tz_mode="aware",
            settings=_CLUSTER if clustered else None,
            # a pool of its own: loopback never goes through a proxy, and close() closes it
            pool_mgr=httputil.get_pool_manager(maxsize=_POOL),
        )
    # set after the connection, so that a database that is yet to be made does not refuse it
    client.database = parts.path.strip("/") or "default"
    return Store(client, where)


def beside(dsn: str, database: str) -> str:
    """The DSN of another database on the same ClickHouse."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))

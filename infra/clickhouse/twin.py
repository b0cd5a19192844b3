"""Two databases of one ClickHouse with the same tables: what one has and the other lacks, and trading places.

Everything here is one statement each, made of names that ClickHouse itself gave (quoted); values are bound.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.errors import StoreError

_VERSION = re.compile(r"ReplacingMergeTree\((?:'[^']*', '[^']*',? ?)?(\w+)\)")
_TABLES = """
SELECT name, sorting_key, engine_full
FROM system.tables
WHERE database = {database:String} AND engine LIKE '%MergeTree' AND endsWith(name, '_log')
ORDER BY name
"""
_DISTRIBUTED = """
SELECT count() AS n FROM system.tables WHERE database = {database:String} AND engine = 'Distributed'
"""
_COLUMNS = """
SELECT table, name
FROM system.columns
WHERE database = {database:String} AND default_kind NOT IN ('MATERIALIZED', 'ALIAS', 'EPHEMERAL')
ORDER BY table, position
"""
# no index analysis: a set of all keys would be kept twice, once of them as values
_SETS = "SETTINGS use_index_for_in_with_subqueries = 0"
_ANY_TIME = "SETTINGS max_partitions_per_insert_block = 0"
_INSERTS = """
SELECT count() AS n
FROM system.processes
WHERE query_kind IN ('Insert', 'AsyncInsertFlush') AND elapsed > {seconds:Float64}
  AND (current_database = {database:String} OR position(query, {database:String}) > 0)
"""


@dataclass(frozen=True)
class Table:
    """A table: which of its rows count as one (``key``), and which of them wins (the greatest ``version``)."""

    name: str
    key: str
    version: str | None
    columns: tuple[str, ...]

    @property
    def of_events(self) -> bool:
        """Whether its rows tell what happened at an instant; others are sums over such rows, or notes of them."""
        return "at" in self.columns

    @property
    def view(self) -> str:
        """The documented name, by which each event is read once."""
        return "training_events" if self.name == "training_log" else self.name.removesuffix("_log")

    @property
    def stored_at(self) -> str:
        """The column that says when a row was stored; where there is none, when what it tells happened."""
        return "ingested_at" if "ingested_at" in self.columns else "at"


@dataclass(frozen=True)
class Rows:
    """How many rows, and from when to when they tell; no times where there are none."""

    n: int
    first: datetime | None = None
    last: datetime | None = None


def distributed(store: Store) -> bool:
    """Whether the store's tables lie on several servers, of which each has a part."""
    return bool(store.query_sql(_DISTRIBUTED, {"database": store.database})[0]["n"])


def tables(store: Store) -> list[Table]:
    """The store's tables with data (``…_log``)."""
    columns: dict[str, list[str]] = {}
    for row in store.query_sql(_COLUMNS, {"database": store.database}):
        columns.setdefault(row["table"], []).append(row["name"])
    found = []
    for row in store.query_sql(_TABLES, {"database": store.database}):
        version = _VERSION.search(row["engine_full"])
        found.append(
            Table(row["name"], row["sorting_key"], version.group(1) if version else None, tuple(columns[row["name"]]))
        )
    return found


def count(store: Store, table: Table, database: str) -> int:
    """How many events a database has in the table, each once."""
    return int(store.query_sql(f"SELECT count() AS n FROM {_name(database, table.view)}")[0]["n"])  # noqa: S608


def lacking(store: Store, table: Table, here: str, there: str, until: datetime | None = None) -> Rows:
    """The events that ``here`` has and ``there`` lacks, or has in an older version only.

    Args:
        store: any connection to that ClickHouse.
        table: the table, the same in both databases.
        here: the one database.
        there: the other.
        until: count only what was stored until then.
    """
    sql = f"SELECT count() AS n, min(at) AS first, max(at) AS last FROM {_name(here, table.name)} FINAL"  # noqa: S608
    sql += f" WHERE {_lacks(table, here, there)}"
    params = {}
    if until is not None:
        sql += f" AND `{table.stored_at}` <= {{until:DateTime64(6, 'UTC')}}"
        params = {"until": until.strftime("%Y-%m-%d %H:%M:%S.%f")}
    [found] = store.query_sql(f"{sql} {_SETS}", params, name=f"{table.view} of {here} and {there}")
    return Rows(int(found["n"]), found["first"], found["last"]) if found["n"] else Rows(0)


def carry(store: Store, table: Table, source: str, target: str) -> None:
    """Copy the events that ``source`` has and ``target`` lacks; doing it again changes nothing."""
    names = ", ".join(f"`{column}`" for column in table.columns)
    store.command(
        f"INSERT INTO {_name(target, table.name)} ({names}) {_ANY_TIME} "  # noqa: S608
        f"SELECT {names} FROM {_name(source, table.name)} FINAL WHERE {_lacks(table, source, target)} {_SETS}"
    )


def trade(store: Store, names: Sequence[str], one: str, other: str) -> None:
    """Let tables of two databases trade places, one after the other, each at once and with all its rows.

    Returns when every insert into ``one`` that began before has ended, wherever its rows went.
    """
    begun = time.monotonic()
    for name in names:
        store.command(f"EXCHANGE TABLES {_name(one, name)} AND {_name(other, name)}")
    while store.query_sql(_INSERTS, {"seconds": time.monotonic() - begun, "database": one})[0]["n"]:
        time.sleep(0.1)


def exists(store: Store, database: str, table: str) -> bool:
    """Whether a database has a table; it need not exist itself."""
    answer = store.command(f"EXISTS TABLE {_name(database, table)}", use_database=False)
    return bool(int(str(answer)))


def drop(store: Store, database: str) -> None:
    """Drop a database with everything in it; one that does not exist is none.

    Raises:
        StoreError: ClickHouse refuses, e.g. because a table is larger than its limit for that.
    """
    if database == "ratchet":
        raise StoreError("the database ratchet is never dropped")
    store.command(f"DROP DATABASE IF EXISTS `{database}` SYNC", use_database=False)


def _lacks(table: Table, here: str, there: str) -> str:
    """A condition on rows of ``here``, for which all columns of the key (and version) are known."""
    if table.version is None:
        return f"({table.key}) NOT IN (SELECT {table.key} FROM {_name(there, table.name)})"  # noqa: S608
    # the newest of both, and not there: an older version of what is there is not missing
    both = f"{table.key}, `{table.version}`"
    union = " UNION ALL ".join(f"SELECT {both} FROM {_name(name, table.name)}" for name in (here, there))  # noqa: S608
    newest = f"SELECT {table.key}, max(`{table.version}`) FROM ({union}) GROUP BY {table.key}"  # noqa: S608
    return f"({both}) NOT IN (SELECT {both} FROM {_name(there, table.name)}) AND ({both}) IN ({newest})"  # noqa: S608


def _name(database: str, table: str) -> str:
    return f"`{database}`.`{table}`"

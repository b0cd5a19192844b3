"""How long rows are kept: the settings' ``[retention]`` as each table's TTL, applied when it differs.

ClickHouse deletes expired rows when it merges. The hourly rollups, the audit log, adapters and
datasets have no retention: they stay. What gateways acknowledge goes after the 30 days that its
migration says. Kafka's own retention is set at the topics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.ddl import Cluster, literal
from ratchet.infra.clickhouse.rollup import roll
from ratchet.schemas.errors import StoreError
from ratchet.schemas.ids import TASK_NAME
from ratchet.schemas.policies import FOREVER, Retention

TABLES = {kind: f"{kind}_log" for kind in Retention.model_fields}
_UNITS = {"h": "Hour", "d": "Day"}
_TTL = re.compile(r" TTL (?P<ttl>.*?)(?: SETTINGS .*)?\Z")


def ttl(common: str | None, of_tasks: Mapping[str, str]) -> str:
    """The TTL clause of one table, without the word TTL; empty where everything is kept.

    Args:
        common: for every other task: ``90d``, ``12h``; None or ``forever`` keep.
        of_tasks: by task, likewise.
    """
    for task in of_tasks:
        if not TASK_NAME.fullmatch(task):
            raise StoreError(f"retention: {task!r} is no task's name")
    rules = [
        f"toDateTime(at) + {_interval(keep)} WHERE task = {literal(task)}"
        for task, keep in sorted(of_tasks.items())
        if keep != FOREVER
    ]
    if common and common != FOREVER:
        others = f" WHERE task NOT IN ({', '.join(literal(task) for task in sorted(of_tasks))})" if of_tasks else ""
        rules.append(f"toDateTime(at) + {_interval(common)}{others}")
    return ", ".join(rules)


def clauses(common: Retention, of_tasks: Mapping[str, Retention]) -> dict[str, str]:
    """The TTL clause of every table that may have one, by table."""
    found = {}
    for kind, table in TABLES.items():
        own = {task: keep for task, policy in of_tasks.items() if (keep := getattr(policy, kind)) is not None}
        found[table] = ttl(getattr(common, kind), own)
    return found


def pending(store: Store, wanted: Mapping[str, str], cluster: Cluster | None = None) -> list[str]:
    """Name the tables whose TTL is not as wanted, each with what it will be; changes nothing.

    Args:
        store: migrated.
        wanted: `clauses`.
        cluster: whose local tables have the TTLs; None on one server.

    Raises:
        StoreError: ClickHouse is away.
    """
    return [f"{table}: {wanted[table] or 'kept for ever'}" for table in _differing(store, wanted, cluster)]


def apply(store: Store, wanted: Mapping[str, str], cluster: Cluster | None = None) -> list[str]:
    """Give every table the TTL that is wanted, and rows that are stored already too; returns what `pending` named.

    The hours are rolled up first, so that no row expires uncounted.

    Raises:
        StoreError: ClickHouse is away.
    """
    if not (differing := _differing(store, wanted, cluster)):
        return []
    roll(store)
    for table in differing:
        action = f"MODIFY TTL {wanted[table]}" if wanted[table] else "REMOVE TTL"
        statement = f"ALTER TABLE {store.database}.{table} {action}"
        for one in cluster.rewrite(statement) if cluster else [statement]:
            store.command(one)
    return [f"{table}: {wanted[table] or 'kept for ever'}" for table in differing]


def _differing(store: Store, wanted: Mapping[str, str], cluster: Cluster | None) -> list[str]:
    suffix = "_local" if cluster else ""
    found = store.query("table_engines", database=store.database)
    engines = {row["name"]: row["engine_full"] for row in found}
    for table in wanted:
        if table + suffix not in engines:
            raise StoreError(
                f"retention: {store.database} has no table {table}{suffix}; run `ratchet migrate` "
                "(a database that was made without clickhouse_cluster stays so)"
            )
    return [table for table, clause in wanted.items() if _of(engines[table + suffix]) != _canonical(store, clause)]


def _of(engine: str) -> str:
    found = _TTL.search(engine)
    return found["ttl"] if found else ""


def _canonical(store: Store, clause: str) -> str:
    """The clause in ClickHouse's own spelling, in which it shows a table's."""
    if not clause:
        return ""
    table = f"CREATE TABLE t (at DateTime, task String) ENGINE = MergeTree ORDER BY at TTL {clause}"
    (row,) = store.query("formatted", statement=table)
    return _of(row["formatted"])


def _interval(keep: str) -> str:
    return f"toInterval{_UNITS[keep[-1]]}({int(keep[:-1])})"

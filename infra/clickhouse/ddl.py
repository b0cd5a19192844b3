"""Statements of migrations as a cluster runs them, and literals for the places where nothing can be bound.

The migration files are written for one server. On a cluster

- a table ``t`` becomes ``t_local`` with the Replicated… counterpart of its engine, on every replica,
  and ``t`` a Distributed table over it, sharded by the sorting key: all copies of an event meet on
  one shard, where ReplacingMergeTree and FINAL tell that they are one;
- a view ``v`` of a table's rows with FINAL becomes ``v_local``, and ``v`` a Distributed table over
  that, so that shards get the question with its conditions; other views read the Distributed layer;
- a materialized view reads and writes the local tables: it runs where the rows are inserted.

A statement that is not understood is refused, never passed on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from ratchet.infra.clickhouse.sql import tokens
from ratchet.schemas.errors import StoreError

_NAME = r"(?:(?P<database>`\w+`|\w+)\.)?(?P<name>\w+)"
_DATABASE = re.compile(r"CREATE DATABASE IF NOT EXISTS `?\w+`?")
_TABLE = re.compile(
    rf"CREATE TABLE IF NOT EXISTS {_NAME}\s*(?P<columns>\(.*\))\s*"
    r"ENGINE = (?P<engine>(?:Replacing|Aggregating|Summing)?MergeTree)(?:\((?P<arguments>\w+)\))?(?P<rest>\s.*)",
    re.DOTALL,
)
_ORDER = re.compile(r"\bORDER BY \((?P<keys>[\w, ]+)\)")
_VIEW = re.compile(
    rf"CREATE (?P<replace>OR REPLACE )?VIEW (?:IF NOT EXISTS )?{_NAME} AS\s+(?P<select>\(?(?:SELECT|WITH)\b.*)",
    re.DOTALL,
)
_COLUMN = r"(?:\*|\w+|toUnixTimestamp64Micro\(\w+\) AS \w+)"
_ROWS = re.compile(
    rf"(?P<head>SELECT\s+{_COLUMN}(?:,\s*{_COLUMN})*\s+FROM (?:\w+\.)?\w+)"
    r"(?P<tail> FINAL(?:\s+(?:WHERE|AND) \w+ (?:NOT )?IN \([^()]*\))*)"
)
_MATERIALIZED = re.compile(
    rf"CREATE MATERIALIZED VIEW IF NOT EXISTS {_NAME} TO (?P<target>(?:\w+\.)?\w+) AS\s+(?P<select>SELECT\b.*)",
    re.DOTALL,
)
_SOURCE = re.compile(r"\bFROM (?P<table>(?:\w+\.)?\w+)")
_ALTER = re.compile(rf"ALTER TABLE {_NAME}\s+(?P<actions>.*)", re.DOTALL)
_OF_COLUMNS = ("ADD COLUMN", "MODIFY COLUMN")
_OF_STORAGE = ("ADD INDEX", "MATERIALIZE INDEX", "DROP INDEX", "MODIFY TTL", "REMOVE TTL", "DELETE WHERE")
_ALLOWED = (
    "CREATE DATABASE, TABLE, VIEW and MATERIALIZED VIEW … TO as the migrations that ship write them, INSERT INTO, "
    f"and ALTER TABLE with one of {', '.join((*_OF_COLUMNS, *_OF_STORAGE))}"
)
REPLICA_PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"


def literal(text: str) -> str:
    """A string as ClickHouse reads it back: for DDL, where parameters cannot be bound."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def without_comments(statement: str) -> str:
    """The statement with one blank or line feed for each stretch of blanks and comments."""
    pieces = []
    for is_space, run in groupby(tokens(statement), key=lambda token: token[0] == "space"):
        text = "".join(piece for _, piece, _ in run)
        pieces.append(("\n" if "\n" in text else " ") if is_space else text)
    return "".join(pieces).strip()


@dataclass(frozen=True)
class Cluster:
    """Rewrites statements for a cluster of that name, as ``remote_servers`` on the servers has it.

    The servers' configuration has the macros ``shard`` and ``replica``.
    """

    name: str
    database: str
    """Of names without one."""

    def rewrite(self, statement: str) -> list[str]:
        """What to run, in order, where one server would run ``statement``.

        Raises:
            StoreError: the statement is of no form that can be rewritten.
        """
        text = without_comments(statement)
        if re.match(r"INSERT INTO\b", text):
            return [text]  # through the Distributed layer
        if found := _DATABASE.fullmatch(text):
            return [f"{text} {self._on}"]
        if found := _TABLE.fullmatch(text):
            return self._table(found)
        if found := _VIEW.fullmatch(text):
            return self._view(found)
        if found := _MATERIALIZED.fullmatch(text):
            return [self._materialized(found)]
        if found := _ALTER.fullmatch(text):
            return self._alter(found)
        first = text.splitlines()[0][:80]
        raise StoreError(f"clickhouse_cluster: cannot rewrite {first!r} for a cluster; allowed: {_ALLOWED}")

    @property
    def _on(self) -> str:
        return f"ON CLUSTER {literal(self.name)}"

    def _of(self, found: re.Match[str]) -> tuple[str, str]:
        return (found["database"] or self.database).strip("`"), found["name"]

    def _table(self, found: re.Match[str]) -> list[str]:
        database, name = self._of(found)
        order = _ORDER.search(found["rest"])
        if order is None:
            raise StoreError(f"clickhouse_cluster: table {name} has no ORDER BY (column, …) to shard by")
        arguments = f"{REPLICA_PATH}, {found['arguments']}" if found["arguments"] else REPLICA_PATH
        local = (
            f"CREATE TABLE IF NOT EXISTS {database}.{name}_local {self._on}\n{found['columns']}\n"
            f"ENGINE = Replicated{found['engine']}({arguments}){found['rest']}"
        )
        key = f"cityHash64({order['keys']})"
        return [local, self._distributed("CREATE TABLE IF NOT EXISTS", database, name, key)]

    def _view(self, found: re.Match[str]) -> list[str]:
        database, name = self._of(found)
        rows = _ROWS.fullmatch(found["select"])
        create = "CREATE OR REPLACE" if found["replace"] else "CREATE"
        if_new = "" if found["replace"] else "IF NOT EXISTS "
        if rows is None:
            return [f"{create} VIEW {if_new}{database}.{name} {self._on} AS\n{found['select']}"]
        select = f"{rows['head']}_local{rows['tail']}"
        local = f"{create} VIEW {if_new}{database}.{name}_local {self._on} AS\n{select}"
        return [local, self._distributed(f"{create} TABLE {if_new}".strip(), database, name, None)]

    def _distributed(self, create: str, database: str, name: str, key: str | None) -> str:
        arguments = [literal(self.name), literal(database), literal(f"{name}_local"), *([key] if key else [])]
        return (
            f"{create} {database}.{name} {self._on} AS {database}.{name}_local\n"
            f"ENGINE = Distributed({', '.join(arguments)})"
        )

    def _materialized(self, found: re.Match[str]) -> str:
        database, name = self._of(found)
        sources = _SOURCE.findall(found["select"])
        if len(sources) != 1:
            raise StoreError(f"clickhouse_cluster: materialized view {name} must read one table, not {sources}")
        select = _SOURCE.sub(r"FROM \g<table>_local", found["select"])
        return (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.{name} {self._on} "
            f"TO {found['target']}_local AS\n{select}"
        )

    def _alter(self, found: re.Match[str]) -> list[str]:
        database, name = self._of(found)
        kinds = {_kind(action) for action in _actions(found["actions"])}
        of_columns = kinds <= set(_OF_COLUMNS)
        if not of_columns and not kinds <= set(_OF_STORAGE):
            raise StoreError(f"clickhouse_cluster: ALTER TABLE {name} {sorted(kinds)}; allowed: {_ALLOWED}")
        altered = [f"{name}_local", *([name] if of_columns else [])]
        return [f"ALTER TABLE {database}.{table} {self._on} {found['actions']}" for table in altered]


def _kind(action: str) -> str:
    return next((kind for kind in (*_OF_COLUMNS, *_OF_STORAGE) if action.startswith(kind)), action)


def _actions(text: str) -> list[str]:
    """The comma-separated actions of an ALTER; the commas of a TTL or a condition are not told apart from those."""
    if text.startswith(("MODIFY TTL", "DELETE WHERE")):
        return [text]
    actions, depth, start = [], 0, 0
    for kind, piece, offset in tokens(text):
        if kind == "other":
            depth += (piece == "(") - (piece == ")")
            if piece == "," and depth == 0:
                actions.append(text[start:offset].strip())
                start = offset + 1
    return [*actions, text[start:].strip()]

"""Numbered migrations: ``NNNN_name.sql`` files, applied once each, in order, statement by statement.

What is applied is written down in the table ``migrations`` after each statement, so a
migration that was cut off goes on where it stopped. ClickHouse has no transactional DDL:
a crash between a statement and its note leaves that one statement to run again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.ddl import Cluster
from ratchet.infra.clickhouse.sql import in_database, split_statements
from ratchet.schemas.errors import StoreError

MIGRATIONS = "ratchet.infra.clickhouse.migrations"
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_TABLE = """
CREATE TABLE IF NOT EXISTS migrations
(
    name String,
    step UInt32,
    steps UInt32,
    sha256 String,
    at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY (name, step)
"""
_APPLIED = "SELECT name, step, steps, sha256 FROM migrations FINAL ORDER BY name, step"


@dataclass(frozen=True)
class Migration:
    """One file: its name without ``.sql`` and its statements."""

    name: str
    statements: tuple[str, ...]

    def digests(self) -> list[str]:
        """SHA-256 of each statement, in order."""
        return [hashlib.sha256(statement.encode()).hexdigest() for statement in self.statements]


def read_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The migrations of a folder in order (by default the ones that ship).

    Raises:
        StoreError: a misnamed file, two of one number, or SQL with an unclosed string.
    """
    found: list[Migration] = []
    for file in sorted((folder or resources.files(MIGRATIONS)).iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".sql"):
            continue
        if not _NAME.match(file.name):
            raise StoreError(f"migration {file.name}: the name must be NNNN_words.sql")
        if found and found[-1].name[:4] == file.name[:4]:
            raise StoreError(f"migration {file.name}: the number is taken by {found[-1].name}.sql")
        try:
            statements = split_statements(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StoreError(f"migration {file.name}: {error}") from None
        found.append(Migration(file.name.removesuffix(".sql"), tuple(statements)))
    return found


def pending(store: Store, folder: Traversable | None = None) -> list[str]:
    """Name the migrations that are not applied, or not to their end; changes nothing.

    Raises:
        StoreError: ClickHouse is away or refuses.
    """
    # asked outside the database, which need not exist either
    if not store.command(f"EXISTS TABLE `{store.database}`.migrations", use_database=False):
        return [migration.name for migration in read_migrations(folder)]
    done: dict[str, int] = {}
    for row in store.query_sql(_APPLIED):
        done[row["name"]] = done.get(row["name"], 0) + 1
    return [
        migration.name for migration in read_migrations(folder) if done.get(migration.name) != len(migration.statements)
    ]


def migrate(store: Store, folder: Traversable | None = None, cluster: Cluster | None = None) -> list[str]:
    """Bring the store's database up to date; returns the names of the migrations that it applied.

    Args:
        store: its database is created if it is not there.
        folder: ``NNNN_name.sql`` files; by default the ones that ship.
        cluster: whose servers all get the tables, replicated and under Distributed ones; None is one server.

    Raises:
        StoreError: an applied migration was changed since, a file is malformed, or ClickHouse
            refused a statement: what was applied until then stays noted, and the next call goes on.
    """
    migrations = read_migrations(folder)

    def run(statement: str, *, use_database: bool = True) -> None:
        for one in cluster.rewrite(statement) if cluster else [statement]:
            store.command(one, use_database=use_database)

    run(f"CREATE DATABASE IF NOT EXISTS `{store.database}`", use_database=False)
    run(_TABLE)
    done: dict[str, list[str]] = {}
    steps: dict[str, int] = {}
    for row in store.query_sql(_APPLIED):
        done.setdefault(row["name"], []).append(row["sha256"])
        steps[row["name"]] = row["steps"]
    applied: list[str] = []
    for migration in migrations:
        digests, before = migration.digests(), done.get(migration.name, [])
        finished = len(before) == steps.get(migration.name)
        if digests[: len(before)] != before or (finished and len(digests) != len(before)):
            raise StoreError(
                f"migration {migration.name} was changed after it was applied to {store.database}; add a new one"
            )
        if finished:
            continue
        for step in range(len(before), len(digests)):
            run(in_database(migration.statements[step], store.database))
            note = {"name": migration.name, "step": step, "steps": len(digests), "sha256": digests[step]}
            store.insert_rows("migrations", [note])
        applied.append(migration.name)
    return applied

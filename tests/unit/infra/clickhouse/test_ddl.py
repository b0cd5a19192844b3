"""What a cluster runs instead of a migration's statements, and literals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clickhouse.ddl import Cluster, literal
from ratchet.infra.clickhouse.migrate import read_migrations
from ratchet.infra.clickhouse.sql import tokens
from ratchet.schemas.errors import StoreError

CLUSTER = Cluster("main", "ratchet")
PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"


@given(st.text("a'\"`\\\n;{}$-/*é"))
def test_a_literal_is_one_string_and_nothing_behind_it(text: str) -> None:
    """Whatever quotes and backslashes a text has, the lexer sees one quoted token, which unescapes to the text."""
    ((kind, piece, _),) = tokens(literal(text))
    assert kind == "quoted"
    inside = iter(piece[1:-1])
    assert "".join(next(inside) if character == "\\" else character for character in inside) == text


def test_a_table_is_replicated_under_a_distributed_one() -> None:
    """With the engine's own argument behind the replica's path, sharded by the sorting key."""
    assert CLUSTER.rewrite(
        "-- why\nCREATE TABLE IF NOT EXISTS ratchet.a_log\n(\n    id UUID, -- what\n    at DateTime64(6, 'UTC')\n)\n"
        "ENGINE = ReplacingMergeTree(at)\nPARTITION BY toYYYYMM(at)\nORDER BY (at, id)"
    ) == [
        "CREATE TABLE IF NOT EXISTS ratchet.a_log_local ON CLUSTER 'main'\n(\nid UUID,\nat DateTime64(6, 'UTC')\n)\n"
        f"ENGINE = ReplicatedReplacingMergeTree({PATH}, at)\nPARTITION BY toYYYYMM(at)\nORDER BY (at, id)",
        "CREATE TABLE IF NOT EXISTS ratchet.a_log ON CLUSTER 'main' AS ratchet.a_log_local\n"
        "ENGINE = Distributed('main', 'ratchet', 'a_log_local', cityHash64(at, id))",
    ]


def test_names_without_a_database_get_the_cluster_s() -> None:
    """And an engine without arguments gets the path alone."""
    local, above = CLUSTER.rewrite("CREATE TABLE IF NOT EXISTS m (x UInt8) ENGINE = ReplacingMergeTree ORDER BY (x)")
    assert local.endswith(f"ENGINE = ReplicatedReplacingMergeTree({PATH}) ORDER BY (x)")
    assert above.startswith("CREATE TABLE IF NOT EXISTS ratchet.m ON CLUSTER 'main' AS ratchet.m_local")


@pytest.mark.parametrize(
    ("create", "view", "table"),
    [
        ("CREATE VIEW IF NOT EXISTS", "CREATE VIEW IF NOT EXISTS", "CREATE TABLE IF NOT EXISTS"),
        ("CREATE OR REPLACE VIEW", "CREATE OR REPLACE VIEW", "CREATE OR REPLACE TABLE"),
    ],
)
def test_a_view_of_rows_is_read_on_the_shards(create: str, view: str, table: str) -> None:
    """So that their indexes see the question's conditions."""
    assert CLUSTER.rewrite(f"{create} ratchet.a AS SELECT * FROM ratchet.a_log FINAL") == [
        f"{view} ratchet.a_local ON CLUSTER 'main' AS\nSELECT * FROM ratchet.a_log_local FINAL",
        f"{table} ratchet.a ON CLUSTER 'main' AS ratchet.a_local\nENGINE = Distributed('main', 'ratchet', 'a_local')",
    ]


def test_a_view_of_some_rows_has_its_conditions_on_the_shards() -> None:
    """Rows with FINAL that conditions leave out are left out by each shard."""
    where = "WHERE a NOT IN ('x') AND b IN ('y', 'z')"
    first, _ = CLUSTER.rewrite(f"CREATE OR REPLACE VIEW ratchet.a AS SELECT * FROM ratchet.a_log FINAL {where}")
    assert first.endswith(f"AS\nSELECT * FROM ratchet.a_log_local FINAL {where}")


@pytest.mark.parametrize("select", ["SELECT count() FROM ratchet.a_log FINAL", "SELECT x FROM ratchet.b GROUP BY x"])
def test_other_views_read_the_distributed_layer(select: str) -> None:
    """An aggregate of each shard would not be one of the whole."""
    assert CLUSTER.rewrite(f"CREATE VIEW IF NOT EXISTS ratchet.a AS\n{select}") == [
        f"CREATE VIEW IF NOT EXISTS ratchet.a ON CLUSTER 'main' AS\n{select}"
    ]


def test_a_materialized_view_stays_on_its_shard() -> None:
    """It reads what is inserted there, and writes there."""
    assert CLUSTER.rewrite(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS ratchet.m TO ratchet.t AS\nSELECT x FROM ratchet.a_log GROUP BY x"
    ) == [
        "CREATE MATERIALIZED VIEW IF NOT EXISTS ratchet.m ON CLUSTER 'main' TO ratchet.t_local AS\n"
        "SELECT x FROM ratchet.a_log_local GROUP BY x"
    ]


def test_columns_change_on_both_layers_and_storage_on_one() -> None:
    """A Distributed table has columns, and neither indexes nor a TTL."""
    column = "ADD COLUMN IF NOT EXISTS x Map(String, String), MODIFY COLUMN y CODEC(T64, ZSTD)"
    assert CLUSTER.rewrite(f"ALTER TABLE ratchet.a_log\n    {column}") == [
        f"ALTER TABLE ratchet.a_log_local ON CLUSTER 'main' {column}",
        f"ALTER TABLE ratchet.a_log ON CLUSTER 'main' {column}",
    ]
    for action in (
        "ADD INDEX i x TYPE bloom_filter(0.01) GRANULARITY 1",
        "DELETE WHERE id IN (SELECT id FROM ratchet.b_log) SETTINGS mutations_sync = 2, max_threads = 1",
        "MODIFY TTL toDateTime(at) + toIntervalDay(1), toDateTime(at) + toIntervalDay(2) WHERE task = 'a'",
        "REMOVE TTL",
    ):
        assert CLUSTER.rewrite(f"ALTER TABLE ratchet.a_log {action}") == [
            f"ALTER TABLE ratchet.a_log_local ON CLUSTER 'main' {action}"
        ]


def test_inserts_go_through_the_distributed_layer() -> None:
    """Unchanged."""
    assert CLUSTER.rewrite("INSERT INTO ratchet.a_log SELECT 1") == ["INSERT INTO ratchet.a_log SELECT 1"]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE ratchet.a_log",
        "CREATE TABLE ratchet.a_log (x UInt8) ENGINE = MergeTree ORDER BY (x)",
        "CREATE TABLE IF NOT EXISTS ratchet.a_log (x UInt8) ENGINE = Memory",
        "CREATE TABLE IF NOT EXISTS ratchet.a_log (x UInt8) ENGINE = MergeTree ORDER BY x",
        "CREATE MATERIALIZED VIEW ratchet.m ENGINE = Memory AS SELECT 1",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS ratchet.m TO ratchet.t AS SELECT 1 FROM a JOIN (SELECT 1 FROM b)",
        "ALTER TABLE ratchet.a_log DROP COLUMN x",
        "ALTER TABLE ratchet.a_log ADD COLUMN x UInt8, ADD INDEX i x TYPE minmax",
        "OPTIMIZE TABLE ratchet.a_log",
    ],
)
def test_what_is_not_understood_is_refused(statement: str) -> None:
    """Rather than run on one server of many."""
    with pytest.raises(StoreError, match="clickhouse_cluster"):
        CLUSTER.rewrite(statement)


def test_every_migration_that_ships_can_be_rewritten() -> None:
    """And all but inserts says ON CLUSTER exactly once a statement."""
    for migration in read_migrations():
        for statement in migration.statements:
            for one in CLUSTER.rewrite(statement):
                assert one.startswith("INSERT INTO") or one.count("ON CLUSTER 'main'") == 1, one

"""Run by test_cluster.py in a process of its own: chDB with the configuration of a cluster that it is alone in.

What cannot be run so: ON CLUSTER (there is no worker for distributed DDL), inserts into replicated
tables (the engine's test keeper leaves them read-only) and more than one shard (it listens nowhere).
So ON CLUSTER is left out, and replicated tables are made in a database of their own; those under
the Distributed ones have the plain engines.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chdb

from ratchet.infra.clickhouse.client import load_query
from ratchet.infra.clickhouse.ddl import Cluster
from ratchet.infra.clickhouse.migrate import read_migrations

REPLICATED = re.compile(r"Replicated(\w*MergeTree)\('/clickhouse[^']*', '\{replica\}'(?:, )?(\w*)\)")
Run = Callable[[str], list[list[Any]]]


def migrate(run: Run) -> int:
    """Run the migrations that ship as far as they go; returns the number of replicated tables made."""
    made = 0
    for database in ("ratchet", "replicated"):
        run(f"CREATE DATABASE {database}")
    for migration in read_migrations():
        for statement in migration.statements:
            for one in Cluster("here", "ratchet").rewrite(statement):
                if not one.startswith("INSERT"):
                    run(f"EXPLAIN AST {one}")
                alone = one.replace(" ON CLUSTER 'here'", "")
                if REPLICATED.search(alone):
                    made += 1
                    run(alone.replace("ratchet.", "replicated."))
                run(REPLICATED.sub(r"\1(\2)", alone))
    return made


def fill_and_read(run: Run) -> dict[str, list[Any]]:
    """Twenty events twice through the Distributed layer; what tables and views say before and after a rollup."""
    event = "toUUID(concat('018f0000-0000-7000-8000-', leftPad(toString(number), 12, '0')))"
    for _ in range(2):
        run(
            "INSERT INTO ratchet.inferences_log (id, at, task, content, status, prompt_tokens) "
            f"SELECT {event}, '2026-11-01 10:00:00', 't', 'é', 'ok', number FROM numbers(20)"
        )
    hourly = "SELECT sum(n), sum(prompt_tokens), sum(characters) FROM ratchet.hourly"
    within = "SELECT count() FROM ratchet.inferences WHERE id IN (SELECT inference_id FROM ratchet.shadows)"
    found = {
        "stored": run("SELECT count() FROM ratchet.inferences_log")[0],
        "once": run("SELECT count(), sum(prompt_tokens) FROM ratchet.inferences WHERE task = 't'")[0],
        "within": run(within)[0],
        "votes": run("SELECT count() FROM ratchet.votes WHERE at > '2026-01-01'")[0],
        "live": run(hourly)[0],
    }
    values = {
        "{task:String}": "'t'",
        "{source:String}": "'inferences'",
        "{hours:Array(DateTime('UTC'))}": "[toDateTime('2026-11-01 10:00:00', 'UTC')]",
        "{upto:DateTime64(6, 'UTC')}": "now64(6)",
        "{live_ms:UInt32}": "0",
    }
    for name in ("roll_inferences", "hours_rolled"):
        sql = load_query(name)
        for place, value in values.items():
            sql = sql.replace(place, value)
        run(sql)
    return found | {"open": run("SELECT count() FROM ratchet.hours_open")[0], "rolled": run(hourly)[0]}


def main(connection: Any) -> None:
    """Print what was found as JSON."""

    def run(sql: str) -> list[list[Any]]:
        output = bytes(connection.query(sql, "JSONCompactEachRow").bytes() or b"")
        return [json.loads(line) for line in output.splitlines()] if sql.startswith("SELECT") else []

    run("SET distributed_foreground_insert = 1, distributed_product_mode = 'global'")
    made = migrate(run)
    replicated = run("SELECT count() FROM system.tables WHERE engine LIKE 'Replicated%'")[0]
    found = fill_and_read(run) | {"replicated": [*replicated, made]}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    # kept until the end: with the test keeper chDB cannot close, nor end its process
    kept = chdb.connect(f"{folder / 'data'}?config-file={folder / 'config.xml'}")
    try:
        main(kept)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        raise
    finally:
        os.kill(os.getpid(), signal.SIGKILL)

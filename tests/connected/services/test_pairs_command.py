from __future__ import annotations

import json
import uuid

import pytest
from typer.testing import CliRunner

from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.services.cli.pairs import app


def test_counts_by_reason(clickhouse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ratchet pairs` counts what was built and dropped, as a table and as JSON; merged rows are no candidates."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    with connect(clickhouse) as store:
        migrate(store)
        rows = [("built", ""), ("built", ""), ("dropped", "tie"), ("merged", "counterpart")]
        store.insert_rows(
            "pairs_log",
            [
                {
                    "task": task,
                    "pair_id": f"p{n}",
                    "source": "thumb",
                    "split": "train",
                    "status": status,
                    "reason": reason,
                }
                for n, (status, reason) in enumerate(rows)
            ],
        )
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    result = CliRunner().invoke(app, ["--task", task, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["built"], found["dropped"]) == (2, {"tie": 1})
    shown = CliRunner().invoke(app, ["--task", task])
    assert "2 built, 1 dropped" in shown.output

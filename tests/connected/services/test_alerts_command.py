"""`ratchet alerts` over the embedded ClickHouse."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import orjson
import pytest
from typer.testing import CliRunner

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import new_id, now
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rows import row
from ratchet.services.cli.alerts import app


def test_it_shows_how_each_alert_stands_now(tables: Store, clickhouse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last word on an alert counts, whatever was stored last; for a person and as JSON, by task and state."""
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    task = f"t-{uuid.uuid4().hex[:12]}"
    first = Alert(
        id=new_id(), at=now(), task=task, kind="drift", severity="warning", title="answers got longer", source="drift",
        summary="median 40 → 90 tokens", action="look at the newest adapter", false_alarms_per_year=0.5,
        evidence={"inferences": ["a", "b"]},
    )  # fmt: skip
    later = first.model_copy(update={"state": "resolved", "at": first.at + timedelta(seconds=5)})
    for event in (later, first):
        stored = row(event)
        assert stored is not None
        tables.insert_json(stored[0], orjson.dumps(stored[1]))
    [shown] = json.loads(CliRunner().invoke(app, ["--task", task, "--json"]).stdout)
    assert (shown["id"], shown["state"], shown["evidence"]) == (first.id, "resolved", first.evidence)
    assert json.loads(CliRunner().invoke(app, ["--task", task, "--state", "open", "--json"]).stdout) == []
    text = CliRunner().invoke(app, ["--task", task]).stdout
    assert "warning, resolved  answers got longer" in text
    assert "(false alarms expected of this rule: 0.5 a year)" in text
    assert "look at the newest adapter" in text

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.clock import now
from ratchet.schemas.events import Inference
from ratchet.services.cli.main import app

pytestmark = pytest.mark.connected


def test_stored_traffic_is_tried(traffic: Any, clickhouse: str, tmp_path: Path, monkeypatch: Any) -> None:
    """`ratchet checks test` sees the task's answers of the time asked for, once each, with all that checks look at."""
    fields = {
        "task": traffic.task, "adapter": "base", "base_model": "tiny", "latency_ms": 50.0, "source": "gateway",
        "stage": "stable", "completion_tokens": 3, "tags": {"case": "a"}, "status": "ok",
        "request": {"messages": [{"role": "user", "content": "hi"}]},
    }  # fmt: skip

    def call(minutes: float, **more: Any) -> Inference:
        at = now() - timedelta(minutes=minutes)
        return Inference.model_validate(fields | {"id": traffic.new_id(at), "at": at} | more)

    asked = call(5, response={"content": "Yes"})
    traffic.write(
        asked,
        asked,  # delivered twice
        call(6, response={"content": "No"}, tags={}, completion_tokens=0),
        call(7, status="error"),
        call(60 * 24 * 3, response={"content": "long ago"}),
    )
    (tmp_path / "refs.jsonl").write_text('{"key": "a", "expect": "yes"}')
    config = tmp_path / "ratchet.toml"
    config.write_text(
        f"[tasks.{traffic.task}]\nchecks = [\n"
        '{ name = "known", kind = "reference", file = "refs.jsonl", by = "tags.case" },\n'
        '{ name = "quick", kind = "latency", max_ms = 100 },\n'
        '{ name = "brief", kind = "length", unit = "tokens", max = 2 },\n]\n'
    )
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    done = CliRunner().invoke(app, ["checks", "test", traffic.task, "--since", "1h", "--json"])
    assert done.exit_code == 0, done.output
    figures = ("n", "passed", "abstained", "not_applicable")
    seen = {one["check"]: tuple(one[name] for name in figures) for one in json.loads(done.output)["checks"]}
    assert seen == {"known": (1, 1, 0, 1), "quick": (2, 2, 0, 0), "brief": (1, 0, 1, 0)}
    wrong = CliRunner().invoke(app, ["checks", "test", traffic.task, "--since", "yesterday"])
    assert wrong.exit_code == 2

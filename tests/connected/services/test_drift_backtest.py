"""`ratchet drift backtest` over hours that ClickHouse recorded."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ratchet.infra.clock import now
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.events import Score
from ratchet.services.cli.main import app

pytestmark = pytest.mark.connected


def backtest(*arguments: str) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["drift", "backtest", "--days", "200", *arguments])


def test_backtest_of_recorded_hours(traffic: Any, clickhouse: str, monkeypatch: Any) -> None:
    """80 hours of judged answers in ClickHouse: a 10% fall is found by every rule, with the recording's hours named."""
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    random = np.random.default_rng(1)
    end = now().replace(minute=0, second=0, microsecond=0)
    fields = {
        "task": traffic.task, "adapter": "base", "target": "inference", "kind": "pointwise", "judge": "j",
        "rubric": "helpful.v1", "rubric_hash": "0" * 16, "prompt_tokens": 1, "completion_tokens": 1,
    }  # fmt: skip
    scores = []
    for hour in range(1, 81):
        at = end - timedelta(hours=hour)
        for score in np.clip(random.normal(0.8, 0.15, 25), 0, 1):
            ids = {"id": traffic.new_id(at), "target_id": traffic.new_id(at), "at": at}
            scores.append(Score.model_validate(fields | ids | {"score": float(score)}))
    traffic.write(*scores)
    done = backtest("--task", traffic.task, "--since", "5d", "--shift", "judge_score=-15%", "--json")
    assert done.exit_code == 0, done.output
    found = {one["rule"]: one for one in json.loads(done.output)}
    assert set(found) == {"drop_alone", "page", "cusum", "detector"}
    assert all(one["delay"]["found"] > 0.9 for one in found.values()), found
    assert found["page"]["false_alarms"]["days"] == 200
    assert "resampled from 80 recorded hours" in found["page"]["note"]


def test_a_task_without_hours_is_refused(clickhouse: str, traffic: Any, monkeypatch: Any) -> None:
    """A task that was never judged names the metric, what there is and what is needed."""
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    failed = backtest("--task", traffic.task, "--shift", "judge_score=-15%").exception
    assert isinstance(failed, SettingsError)
    assert "judge_score: recorded traffic: 0 judged hours" in str(failed)

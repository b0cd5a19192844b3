from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.clock import now
from ratchet.schemas.events import Inference, Score, Shadow
from ratchet.services.cli.main import app

pytestmark = pytest.mark.connected


def calls(traffic: Any) -> list[Any]:
    """Two priced calls, one of unknown cost, one of long ago; a priced copy; a judged answer; a check."""
    at = now() - timedelta(minutes=5)
    fields = {
        "task": traffic.task, "adapter": "base", "base_model": "tiny", "request": {"prompt": "x"}, "status": "ok",
        "latency_ms": 1, "prompt_tokens": 100, "completion_tokens": 10, "source": "gateway",
    }  # fmt: skip
    shadow = {"rollout_id": traffic.new_id(at), "inference_id": traffic.new_id(at)}
    score = {
        "task": traffic.task, "adapter": "base", "target_id": traffic.new_id(at), "target": "inference",
        "rubric": "helpful.v1", "rubric_hash": "0" * 16, "score": 1.0, "prompt_tokens": 1000, "completion_tokens": 1,
    }  # fmt: skip

    def event(kind: Any, when: Any, *parts: dict[str, Any]) -> Any:
        merged = {name: value for part in parts for name, value in part.items()}
        return kind.model_validate(merged | {"id": traffic.new_id(when), "at": when})

    first = event(Inference, at, fields, {"stage": "stable", "cost_usd": 0.002})
    return [
        first,
        first,  # delivered twice
        event(Inference, at, fields, {"stage": "stable", "cost_usd": 0.004}),
        event(Inference, at, fields, {"stage": "stable", "prompt_tokens": 0, "completion_tokens": 0}),
        event(Inference, at - timedelta(days=3), fields, {"stage": "stable", "cost_usd": 1.0}),
        event(Shadow, at, fields, shadow, {"cost_usd": 0.003}),
        event(Score, at, score, {"kind": "pointwise", "judge": "big-judge"}),
        event(Score, at, score, {"kind": "check", "judge": "check"}),
    ]


def test_cost_by_task_and_adapter(traffic: Any, clickhouse: str, tmp_path: Path, monkeypatch: Any) -> None:
    """`ratchet cost` sums what is known over the time asked for, once each, and prices the judge by the settings."""
    traffic.write(*calls(traffic))
    config = tmp_path / "ratchet.toml"
    config.write_text('[prices."big-judge"]\nprompt_per_million = 2.0\ncompletion_per_million = 4.0\n')
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    done = CliRunner().invoke(app, ["cost", "--task", traffic.task, "--since", "1h", "--json"])
    assert done.exit_code == 0, done.output
    production, shadow, judge = json.loads(done.output)
    assert production == {
        "task": traffic.task, "use": "production", "name": "base", "n": 3, "prompt_tokens": 200,
        "completion_tokens": 20, "cost_usd": pytest.approx(0.006), "per_request_usd": pytest.approx(0.003),
        "unknown": pytest.approx(1 / 3),
    }  # fmt: skip
    assert (shadow["use"], shadow["n"], shadow["cost_usd"]) == ("shadow", 1, pytest.approx(0.003))
    assert (judge["name"], judge["n"], judge["cost_usd"]) == ("big-judge", 1, pytest.approx(0.002004))
    longer = CliRunner().invoke(app, ["cost", "--task", traffic.task, "--since", "7d"])
    assert "1.0110 USD, and 1 calls of unknown cost" in " ".join(longer.output.split())


def test_nothing_known_is_not_zero(traffic: Any, clickhouse: str, monkeypatch: Any, tmp_path: Path) -> None:
    """Without traffic, and so without a cost, the total is unknown; a misspelt span ends with what is allowed."""
    (tmp_path / "ratchet.toml").write_text("")
    monkeypatch.setenv("RATCHET_CONFIG", str(tmp_path / "ratchet.toml"))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    assert "unknown USD" in CliRunner().invoke(app, ["cost", "--task", traffic.task]).output
    wrong = CliRunner().invoke(app, ["cost", "--since", "yesterday"])
    assert wrong.exit_code == 2
    assert "allowed: 30m" in " ".join(wrong.output.replace("│", " ").split())

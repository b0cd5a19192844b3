"""A task's recorded traffic, and what `ratchet rollout lint` and `simulate` say of it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.clock import now
from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Event, Feedback, Inference, Score
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.cli.main import app
from ratchet.services.rollout_plan import measured, trusted

pytestmark = pytest.mark.connected
HOURS = 10
CHECKED = {"completion": "ticket", "checks": [{"name": "ticket", "kind": "length"}]}


def recorded(traffic: Any, calls: int = 400) -> None:
    """Ten hours of calls until now: a tenth fail; 40 users, one with half of the calls; 30% get a thumb later."""
    began = now() - timedelta(hours=HOURS)
    events: list[Event] = []
    for i in range(calls):
        at = began + timedelta(hours=HOURS * i / calls)
        user = "busy" if i % 2 else f"u{i // 2 % 39}"
        body = {
            "id": traffic.new_id(at), "at": at, "task": traffic.task, "adapter": "base", "stage": "stable",
            "base_model": "m", "request": {"prompt": "hello"}, "status": "error" if i % 10 == 3 else "ok",
            "latency_ms": 100.0 + i, "source": "gateway", "user": user,
        }  # fmt: skip
        call = Inference.model_validate(body)
        events.append(call)
        if i % 10 in (0, 4, 8):
            said = {"id": traffic.new_id(at), "at": at + timedelta(minutes=30), "task": traffic.task, "source": "http"}
            thumb = {"inference_id": call.id, "kind": "thumb", "value": i % 10 != 4}
            events.append(Feedback.model_validate(said | thumb))
        if i % 2 == 0:
            score = {
                "id": traffic.new_id(at), "at": at, "task": traffic.task, "adapter": "base", "target_id": call.id,
                "target": "inference", "kind": "check", "judge": "check", "rubric": "ticket", "rubric_hash": "0" * 16,
                "score": float(i % 8 != 0),
            }  # fmt: skip
            events.append(Score.model_validate(score))
    traffic.write(*events)


def test_traffic_is_measured_as_it_was_recorded(traffic: Any) -> None:
    """Calls an hour, users and how unevenly they call, errors, thumbs and how late they come, what a check says."""
    recorded(traffic)
    until = now()
    policy = TaskPolicy.model_validate(CHECKED)
    seen = measured(traffic.store, traffic.task, policy, until - timedelta(days=1), until)
    assert seen is not None
    assert seen.requests_per_hour == pytest.approx(40, rel=0.05)
    assert seen.users == 40
    assert 1.2 < seen.activity_sd < 2.0
    assert seen.error_rate == pytest.approx(0.1)
    assert seen.feedback_share == pytest.approx(0.3, abs=0.02)
    assert seen.satisfaction == pytest.approx(2 / 3, abs=0.02)
    assert seen.delay_h == pytest.approx(0.5, abs=0.01)
    assert (seen.completion, seen.outcome_share) == (pytest.approx(0.75), pytest.approx(0.5))
    assert measured(traffic.store, traffic.task, policy, until - timedelta(minutes=30), until) is None


def test_only_the_judges_that_gates_ask_are_looked_up(traffic: Any) -> None:
    """Nobody calibrated them, so neither decides; without such gates nobody is asked about."""
    gates = [{"metric": "judge_score", "margin": 0.05}, {"metric": "win_rate", "margin": 0.05}]
    asking = TaskPolicy.model_validate({"rollout": {"gates": gates}})
    assert trusted(traffic.store, traffic.task, asking, now()) == {"judge_score": False, "win_rate": False}
    assert trusted(traffic.store, traffic.task, TaskPolicy(), now()) == {}


def test_the_commands_speak_of_recorded_traffic(
    traffic: Any, clickhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lint refuses what 40 requests an hour cannot decide; simulate shows that such rollouts stay undecided."""
    recorded(traffic)
    (tmp_path / "ratchet.toml").write_text(
        f"[tasks.{traffic.task}.rollout]\n"
        'stages = [{name = "20%", weight_bp = 2000, max_wait_s = 86400}, {name = "100%", weight_bp = 10000}]\n'
        'gates = [{metric = "error_rate", margin = 0.005}]\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    refused = CliRunner().invoke(app, ["rollout", "lint", traffic.task, "--json"])
    assert isinstance(refused.exception, RolloutError)
    [told] = json.loads(refused.stdout)
    assert "40 requests an hour, 40 users" in told["traffic"]
    assert [one["severity"] for one in told["findings"]] == ["error"]
    assert told["findings"][0]["field"] == "rollout.gates[error_rate].max_n"
    done = CliRunner().invoke(app, ["rollout", "simulate", traffic.task, "--rollouts", "20", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["candidates"]
    assert list(found) == ["equal", "error_rate at its margin", "error_rate 4 margins worse"]
    assert found["equal"]["promoted"]["value"] < 0.5
    busier = ["--requests-per-hour", "8000", "--users", "2000", "--error-rate", "0.01"]
    done = CliRunner().invoke(app, ["rollout", "simulate", traffic.task, "--rollouts", "20", *busier])
    assert done.exit_code == 0, done.output
    assert "with requests_per_hour 8000, users 2000, error_rate 0.01 as said" in done.stdout.replace("\n", " ")

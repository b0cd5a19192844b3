"""`ratchet jobs` and `ratchet train --detach` on a real broker and ClickHouse's engine: asked, shown, cancelled."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import SettingsError, TrainingError
from ratchet.schemas.events import Training
from ratchet.services.cli.main import app

pytestmark = pytest.mark.connected


def test_a_job_is_asked_for_shown_and_cancelled(
    traffic: Any, bootstrap: str, clickhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detached training is one request; its story is shown, and a cancel is an event with who and why, once."""
    config = tmp_path / "ratchet.toml"
    config.write_text(f'[tasks.{traffic.task}]\n[tasks.{traffic.task}.training]\nmethod = "kto"\n')
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", bootstrap)
    monkeypatch.setenv("RATCHET_KAFKA_IDEMPOTENCE", "false")
    run = CliRunner()

    def sent() -> list[Training]:
        return [parse(Training, record.value or b"") for record in read_all(bootstrap, "ratchet.training")]

    asked = run.invoke(app, ["train", traffic.task, "--detach", "--max-pairs", "9", "--dataset", "ab", "--json"])
    assert asked.exit_code == 0, asked.output
    (request,) = sent()
    assert json.loads(asked.output)["job_id"] == request.job_id
    assert (request.state, request.method, request.trigger) == ("requested", "kto", "manual")
    assert request.params == {"max_pairs": 9, "dataset": "ab"}
    unknown = run.invoke(app, ["train", "nobody", "--detach"]).exception
    assert isinstance(unknown, SettingsError)
    assert f"task 'nobody'; allowed: {traffic.task}" in str(unknown)

    missing = run.invoke(app, ["jobs", "cancel", request.job_id]).exception
    assert isinstance(missing, TrainingError)
    assert "is not known" in str(missing)
    step = {"state": "progress", "step": 1, "steps": 2, "metrics": {"loss": 0.5}, "reason": ""}
    traffic.write(request, request.model_copy(update=step | {"id": traffic.new_id(), "at": request.at + timedelta(1)}))
    (row,) = json.loads(run.invoke(app, ["jobs", "list", traffic.task, "--json"]).output)
    assert (row["job_id"], row["state"], row["metrics"]) == (request.job_id, "progress", {"loss": 0.5})
    shown = run.invoke(app, ["jobs", "show", request.job_id]).output
    assert "requested, asked for by hand" in shown
    assert "step 1 of 2: loss 0.5" in shown

    done = run.invoke(app, ["jobs", "cancel", request.job_id, "--why", "too dear"])
    assert done.exit_code == 0, done.output
    word = next(event for event in sent() if event.state == "cancelled")
    assert word.reason.startswith("cancelled by ")
    assert word.reason.endswith(": too dear")
    traffic.write(word.model_copy(update={"at": request.at + timedelta(2)}))
    again = run.invoke(app, ["jobs", "cancel", request.job_id]).exception
    assert isinstance(again, TrainingError)
    assert "has ended: it was cancelled" in str(again)
    assert isinstance(run.invoke(app, ["jobs", "show", "seven"]).exception, TrainingError)

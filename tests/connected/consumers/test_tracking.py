"""Training jobs as runs of a real MLflow server, read back through its REST API."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from parts import wait_for

from ratchet.consumers.tracking import Tracking
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.tracking.mlflow import Mlflow
from ratchet.infra.tracking.wandb import Wandb
from ratchet.schemas.errors import TrackingError
from ratchet.schemas.events import Training
from ratchet.schemas.ids import derived_id

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
UNPACKED = Path(os.environ.get("RATCHET_TEST_MLFLOW", Path(sys.prefix) / "mlflow"))
"""Where `make test` puts the server beside the packages."""
PARAMS = {"method": "dpo", "beta": 0.1, "loss_type": ["sigmoid", "sft"], "early_stopping": None}


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server over a SQLite file, on a free port."""
    if not (UNPACKED / "mlflow").is_dir():
        pytest.skip(f"no MLflow in {UNPACKED} (make test puts it there)")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "files")]
    environment = os.environ | {"PYTHONPATH": str(UNPACKED), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, process_group=0)
    try:
        url = f"http://127.0.0.1:{port}"

        def up() -> bool:
            assert server.poll() is None, (folder / "log").read_text()
            return httpx.get(f"{url}/health", timeout=5).status_code == 200

        wait_for(up, patience_s=300, every_s=0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def told(job: str, minutes: float, state: str, **fields: Any) -> Training:
    """An event of a job of task support."""
    at = START + timedelta(minutes=minutes)
    made = {"id": derived_id(1, job, state, str(minutes)), "at": at, "task": "support", "job_id": derived_id(2, job)}
    return Training.model_validate(made | {"state": state, "dataset": "support-1a2b"} | fields)


def tell(tracking: Tracking, *events: Training) -> None:
    """Handle events, one after the other."""
    for event in events:
        asyncio.run(tracking.handle(event))


def run_of(url: str, job: str) -> dict[str, Any]:
    """The one run of a job, as the server has it."""
    api = f"{url}/api/2.0/mlflow"
    found = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": "learned"}, timeout=60).json()
    where = {
        "experiment_ids": [found["experiment"]["experiment_id"]],
        "filter": f"tags.`ratchet.job_id` = '{derived_id(2, job)}'",
    }
    (run,) = httpx.post(f"{api}/runs/search", json=where, timeout=60).json()["runs"]
    return dict(run)


def losses(url: str, run: dict[str, Any]) -> list[tuple[int, float, int]]:
    """Step, value and milliseconds of every loss."""
    asked = {"run_id": run["info"]["run_id"], "metric_key": "loss"}
    answer = httpx.get(f"{url}/api/2.0/mlflow/metrics/get-history", params=asked, timeout=60).json()
    return sorted((one["step"], one["value"], one["timestamp"]) for one in answer["metrics"])


@pytest.mark.connected
@pytest.mark.slow
def test_a_job_is_one_run_however_often_it_is_told(mlflow: str) -> None:
    """A consumer that dies and hears everything again goes on in the same run; each figure is there once."""
    lines = [told("one", n, "progress", step=n, steps=3, metrics={"loss": 1.0 / n, "lr": 0.001}) for n in (1, 2, 3)]
    begun = [told("one", 0, "started"), *lines[:2]]
    tell(Tracking(Mlflow(mlflow, "learned")), *begun)
    assert run_of(mlflow, "one")["info"]["status"] == "RUNNING"

    end = told(
        "one", 9, "finished", adapter="support@v1-1a2b3c4d", params=PARAMS, metrics={"loss_last": 0.3, "steps": 3}
    )
    for _ in range(2):
        tell(Tracking(Mlflow(mlflow, "learned")), *begun, lines[2], end)

    run = run_of(mlflow, "one")
    at = [round((START + timedelta(minutes=n)).timestamp() * 1000) for n in (1, 2, 3)]
    assert losses(mlflow, run) == [(1, 1.0, at[0]), (2, 0.5, at[1]), (3, pytest.approx(1 / 3), at[2])]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"].startswith("support ")
    told_params = {one["key"]: one["value"] for one in run["data"]["params"]}
    assert told_params == {"method": "dpo", "beta": "0.1", "loss_type": '["sigmoid", "sft"]'}
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    assert tags["ratchet.adapter"] == "support@v1-1a2b3c4d"
    assert (tags["ratchet.dataset"], tags["ratchet.task"]) == ("support-1a2b", "support")
    assert {one["key"]: one["value"] for one in run["data"]["metrics"]}["loss_last"] == 0.3


@pytest.mark.connected
@pytest.mark.slow
@pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("cancelled", "KILLED")])
def test_a_run_without_an_adapter_says_why(mlflow: str, state: str, status: str) -> None:
    """A job that failed before it started has a run, too, with its reason; a decision not to train has none."""
    tell(
        Tracking(Mlflow(mlflow, "learned")),
        told(state, 0, "requested"),
        told(state, 1, state, reason="loss is nan at step 3 of 9: the run stopped"),
    )
    run = run_of(mlflow, state)
    assert run["info"]["status"] == status
    assert {"key": "ratchet.reason", "value": "loss is nan at step 3 of 9: the run stopped"} in run["data"]["tags"]


def test_a_tracker_that_is_away_keeps_the_event_waiting() -> None:
    """The handler raises, so the stream reads the event again later; the error names the host."""
    tracker = Mlflow(f"http://127.0.0.1:{free_port()}", "learned")
    with pytest.raises(TrackingError, match=r"MLflow at 127\.0\.0\.1 is away"):
        tell(Tracking(tracker), told("away", 0, "started"))
    tracker.close()


def test_events_that_train_nothing_need_no_tracker() -> None:
    """A request that waits is no run yet: nobody is asked."""
    tracker = Mlflow(f"http://127.0.0.1:{free_port()}", "learned")
    tell(Tracking(tracker), told("asked", 0, "requested"))
    tracker.close()


def test_weights_and_biases_keeps_a_run_on_disk(tmp_path: Path) -> None:
    """Offline, its own library writes the run under the job's id, for `wandb sync` to send."""
    pytest.importorskip("wandb", reason="the extra tracking-wandb is not installed")
    tracker = Wandb(None, "learned", tmp_path, offline=True)
    line = told("wb", 1, "progress", step=1, steps=1, metrics={"loss": 1.0})
    figures = {"loss_last": 1.0, "steps": 1}
    end = told("wb", 2, "finished", adapter="support@v1-1a2b3c4d", params=PARAMS, metrics=figures)
    tell(Tracking(tracker), told("wb", 0, "started"), line, end)
    tracker.close()
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert kept.name == f"run-{derived_id(2, 'wb')}.wandb"
    assert b"support@v1-1a2b3c4d" in kept.read_bytes()

"""`ratchet evaluate --matrix` over ClickHouse's engine and a model server: measured now, or as training stored it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from parts import JsonHandler
from typer.testing import CliRunner

from ratchet.schemas.rollout_events import Rollout
from ratchet.services.cli.main import app

pytestmark = pytest.mark.connected

SETTINGS = """
base_model = "base-model"

[tasks.{task}]
completion = "short"

[[tasks.{task}.checks]]
name = "short"
kind = "regex"
pattern = "^yes"

[tasks.{task}.evaluation]
prompts = "heldout.jsonl"
judged = 5
gates = [
    {{ metric = "completion", margin = 0.2, min_n = 20 }},
    {{ metric = "win_rate", floor = 0.1, min_n = 5, critical = {critical} }},
]
"""


class Models:
    """A model server that loads adapters and answers: adapters mostly say yes, the base model no."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        models = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                names = {"base-model": "/base"} | models.loaded
                self.reply({"data": [{"id": name, "root": root} for name, root in names.items()]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path.endswith("load_lora_adapter"):
                    models.loaded[body["lora_name"]] = body["lora_path"]
                    self.reply({})
                    return
                if body["model"] not in {"base-model", *models.loaded}:
                    self.reply({"error": {"message": "no such model"}}, 404)
                    return
                judges = "answer_a" in str(body["messages"])
                answer = "yes" if body["model"] in models.loaded else "no"
                text = '{"verdict": "C", "rationale": ""}' if judges else answer
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
                head = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
                self.reply(head | {"choices": [choice], "usage": usage})

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def models() -> Iterator[Models]:
    """A running model server."""
    made = Models()
    yield made
    made.stop()


def _configure(
    folder: Path, task: str, url: str, clickhouse: str, monkeypatch: pytest.MonkeyPatch, critical: bool
) -> None:
    config = folder / "ratchet.toml"
    config.write_text(SETTINGS.format(task=task, critical=str(critical).lower()))
    rows = [{"messages": [{"role": "user", "content": f"question {n}"}]} for n in range(20)]
    (folder / "heldout.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("RATCHET_VLLM_URLS", url)
    monkeypatch.setenv("RATCHET_HOME", str(folder / "home"))


def test_the_matrix_is_measured_now_and_its_judge_is_advisory(
    traffic: Any, clickhouse: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest adapter is loaded and asked beside the base model; a judge nobody labelled decides nothing."""
    adapter = traffic.adapter(1).model_copy(update={"base_model": "base-model"})
    traffic.write(adapter)
    picture = tmp_path / "matrix.svg"
    _configure(tmp_path, traffic.task, models.url, clickhouse, monkeypatch, critical=False)
    arguments = ["evaluate", traffic.task, "--matrix", "--json", "--picture", str(picture)]
    said = CliRunner().invoke(app, arguments, catch_exceptions=False)
    found = json.loads(said.stdout)
    assert found["adapter"] == adapter.name
    assert models.loaded == {adapter.name: adapter.path}
    completion = found["matrix"]["metrics"]["completion"]
    assert (completion["base"]["value"], completion["candidate"]["value"]) == (0.0, 1.0)
    assert {one["metric"]: one["verdict"] for one in found["gates"]} == {
        "completion": "pass",
        "win_rate": "inconclusive",
    }
    assert "no human label" in found["matrix"]["judge"]["advisory"]
    assert found["rejected"] is None
    assert picture.is_file()
    _configure(tmp_path, traffic.task, models.url, clickhouse, monkeypatch, critical=True)
    again = CliRunner().invoke(app, ["evaluate", adapter.name, "--matrix"], catch_exceptions=False)
    assert f"{adapter.name} has no pass: win_rate: inconclusive" in again.stdout


def test_the_stored_matrix_is_shown_without_measuring(
    traffic: Any, clickhouse: str, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training found is in the manifest; a running candidate is what its task's name means."""
    figure = {"n": 20, "value": 0.9, "low": 0.7, "high": 0.97, "missing": 0}
    row = {"kind": "rate", "errors": {}, "candidate": figure}
    matrix = {"models": {"candidate": "c"}, "against": "base", "confidence": 0.95, "seed": 0, "metrics": {"bleu": row}}
    first = traffic.adapter(1).model_copy(update={"evaluation": {"matrix": matrix, "gates": []}})
    second = traffic.adapter(2)
    table = Rollout.model_validate(
        {
            "id": traffic.new_id(), "at": traffic.start, "task": traffic.task, "rollout_id": traffic.new_id(),
            "version": 1, "status": "running", "stage": "shadow", "stage_started_at": traffic.start, "stable": "base",
            "candidate": first.name, "action": "start",
        }
    )  # fmt: skip
    traffic.write(first, second, table)
    _configure(tmp_path, traffic.task, models.url, clickhouse, monkeypatch, critical=True)
    said = CliRunner().invoke(app, ["evaluate", traffic.task, "--stored"], catch_exceptions=False)
    assert "90.0%" in said.stdout
    assert models.loaded == {}
    missing = CliRunner().invoke(app, ["evaluate", second.name, "--stored"])
    assert "its training measured no matrix" in str(missing.exception)

"""What the controller's tests stand on: a task's traffic in ClickHouse, and vLLM's adapter API."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.schemas.events import Adapter, Event, Feedback, Inference, Score, Shadow
from ratchet.schemas.ids import uuid7
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rows import row
from ratchet.trainers.registry import CONFIG, WEIGHTS

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def new_id(at: datetime = START) -> str:
    """A fresh UUIDv7 of that instant."""
    return uuid7(int(at.timestamp() * 1000), os.urandom(10))


class Replica:
    """A vLLM as far as adapters go: lists, loads once a name, forgets when it restarts."""

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}
        self.loads: list[str] = []
        self.refuses = False
        self.chats: list[str] = []
        self.sure = -0.01
        self.answers, self.asked = threading.Event(), threading.Event()
        self.answers.set()
        replica = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not replica.answers.is_set():
                    replica.asked.set()
                    replica.answers.wait()
                names = {"base-model": "/base"} | replica.adapters
                self._answer(200, {"data": [{"id": name, "root": root} for name, root in names.items()]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/v1/chat/completions":
                    self._answer(*replica.complete(body))
                    return
                if self.path == "/v1/unload_lora_adapter":
                    self._answer(200 if replica.adapters.pop(body["lora_name"], None) else 404, {})
                    return
                if replica.refuses or body["lora_name"] in replica.adapters:
                    self._answer(400, {"error": {"message": "no adapter_config.json there"}})
                    return
                replica.adapters[body["lora_name"]] = body["lora_path"]
                replica.loads.append(body["lora_name"])
                self._answer(200, {})

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def complete(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A chat completion under a served name: as sure of its token as ``sure`` says."""
        self.chats.append(body["model"])
        if body["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        token = {"token": "{", "logprob": self.sure}
        content = [token | {"top_logprobs": [token]}]
        message = {"role": "assistant", "content": "{"}
        return 200, {"choices": [{"index": 0, "message": message, "logprobs": {"content": content}}]}

    def stop(self) -> None:
        """Close the port; later calls are refused."""
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    """Two vLLM replicas."""
    running = [Replica(), Replica()]
    yield running
    for replica in running:
        replica.stop()


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """An embedded broker that holds nothing."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with Supervisor(grace_s=0.2) as supervisor:
        supervisor.start(Child("broker", broker_command(port), tmp_path / "broker.log", BrokerProbe(address)))
        ensure_topics(address)
        yield address


@pytest.fixture(scope="session")
def tables(clickhouse: str) -> Iterator[Store]:
    """ClickHouse with the product's tables."""
    store = connect(clickhouse)
    migrate(store)
    yield store
    store.close()


class Traffic:
    """Writes a task's events to ClickHouse as ingest does."""

    start = START
    new_id = staticmethod(new_id)

    def __init__(self, store: Store, task: str, shelf: Path) -> None:
        self.store, self.task, self.shelf = store, task, shelf

    def write(self, *events: Event) -> None:
        """Insert events as rows."""
        by_table: dict[str, list[dict[str, Any]]] = {}
        for event in events:
            stored = row(event)
            assert stored is not None
            by_table.setdefault(stored[0], []).append(stored[1])
        for table, rows in by_table.items():
            self.store.insert_rows(f"ratchet.{table}", rows)

    def adapter(self, number: int, at: datetime = START) -> Adapter:
        """A registered adapter of the task, with its files."""
        made = {WEIGHTS: f"weights {number}".encode(), CONFIG: b"{}"}
        files = {file: hashlib.sha256(content).hexdigest() for file, content in made.items()}
        name = f"{self.task}@v{number}-{files[WEIGHTS][:8]}"
        (self.shelf / name).mkdir(exist_ok=True)
        for file, content in made.items():
            (self.shelf / name / file).write_bytes(content)
        body = {
            "id": new_id(at), "at": at, "task": self.task, "name": name, "label": "l", "status": "registered",
            "method": "dpo", "base_model": "m", "path": str(self.shelf / name), "dataset": f"d{number}",
            "weights_sha256": files[WEIGHTS], "files": files, "dataset_sha256": "0" * 64, "job_id": new_id(at),
        }  # fmt: skip
        return Adapter.model_validate(body)

    def calls(
        self,
        state: Rollout,
        arm: str,
        at: datetime,
        n: int,
        *,
        completed: int | None = None,
        errors: int = 0,
        thumbs_up: int | None = None,
        latency_ms: float = 100.0,
    ) -> list[Inference]:
        """Production calls of one arm: the first ``errors`` fail, the last ``completed`` pass the check."""
        events: list[Event] = []
        calls: list[Inference] = []
        adapter = state.candidate if arm == "canary" else state.stable
        for i in range(n):
            when = at + timedelta(milliseconds=i)
            failed = i < errors
            call = Inference.model_validate(
                self._call(when, adapter, state, failed, latency_ms + i % 10) | {"stage": arm}
            )
            calls.append(call)
            if completed is not None and not failed:
                events.append(self._score(call.id, "inference", call.adapter, state, when, i >= n - completed))
            if thumbs_up is not None and not failed:
                thumb = {"id": new_id(when), "at": when, "task": self.task, "inference_id": call.id, "kind": "thumb"}
                events.append(Feedback.model_validate(thumb | {"value": i >= n - thumbs_up, "source": "http"}))
        self.write(*calls, *events)
        return calls

    def mirror(self, state: Rollout, calls: list[Inference], completed: int, latency_ms: float = 100.0) -> None:
        """The candidate's answers to copies of production calls; the last ``completed`` pass the check."""
        events: list[Event] = []
        for i, call in enumerate(calls):
            shadow = Shadow.model_validate(
                self._call(call.at, state.candidate, state, False, latency_ms + i % 10) | {"inference_id": call.id}
            )
            passed = i >= len(calls) - completed
            events += [shadow, self._score(shadow.id, "shadow", shadow.adapter, state, call.at, passed)]
        self.write(*events)

    def _call(self, at: datetime, adapter: str | None, state: Rollout, failed: bool, latency: float) -> dict[str, Any]:
        return {
            "id": new_id(at), "at": at, "task": self.task, "adapter": adapter, "rollout_id": state.rollout_id,
            "base_model": "m", "request": {"prompt": "hello"}, "status": "error" if failed else "ok",
            "latency_ms": latency, "source": "gateway",
        }  # fmt: skip

    def _score(self, target: str, kind: str, adapter: str, state: Rollout, at: datetime, passed: bool) -> Score:
        return Score.model_validate(
            {
                "id": new_id(at), "at": at, "task": self.task, "adapter": adapter, "rollout_id": state.rollout_id,
                "target_id": target, "target": kind, "kind": "check", "judge": "check", "rubric": "ticket",
                "rubric_hash": "0" * 16, "score": float(passed),
            }
        )  # fmt: skip


@pytest.fixture
def traffic(tables: Store, request: pytest.FixtureRequest, tmp_path: Path) -> Traffic:
    """Traffic of a task that no other test has."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return Traffic(tables, f"t{os.getpid()}-{name}"[:60].rstrip("-"), tmp_path)

"""A gateway that is killed again and again: everything it accepted is on the topics in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from parts import PATIENCE_S, metric, wait_for

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.tail import read_all

TASK = "spooled"
SCRIPT = """
import sys
from pathlib import Path
from ratchet.infra.settings import Settings
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.processes import run_gateway
bootstrap, port, home = sys.argv[1:]
run_gateway(Settings(home=Path(home), kafka_bootstrap=bootstrap, kafka_idempotence=False, gateway_port=int(port),
                     vllm_urls=["http://127.0.0.1:1"], spool_max_mb=64, tasks={"spooled": TaskPolicy()}))
"""


class Sender:
    """Sends feedback and events to a gateway, and remembers the ids of what it was told was accepted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.feedback: set[str] = set()
        self.inferences: set[str] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in (self._opinion, self._events)]

    def __enter__(self) -> Sender:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, send: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as client:
            while not self._stop.is_set():
                try:
                    send(client)
                except httpx.TransportError:
                    time.sleep(0.02)  # killed, and not up again yet: nothing was accepted

    def _opinion(self, client: httpx.Client) -> None:
        id = new_id()
        body = {"id": id, "task": TASK, "inference_id": new_id(), "kind": "thumb", "value": True}
        if client.post("/v1/feedback", json=body).status_code == 202:
            self.feedback.add(id)

    def _events(self, client: httpx.Client) -> None:
        events = [inference() for _ in range(5)]
        if client.post("/v1/events", json=events).status_code == 202:
            self.inferences |= {event["id"] for event in events}


def inference() -> dict[str, Any]:
    """An event as an app without the gateway's proxy sends it."""
    return {
        "schema": "inference.v1",
        "id": new_id(),
        "at": now().isoformat(),
        "task": TASK,
        "adapter": "base",
        "stage": "stable",
        "base_model": "tiny",
        "request": {"messages": [{"role": "user", "content": "Hi"}]},
        "response": {"content": "x" * 1000, "finish_reason": "stop"},
        "status": "ok",
        "latency_ms": 5,
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "stream": False,
    }


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts gateway processes on one home, with ``url`` as their address."""
    port = free_port()
    running: list[subprocess.Popen[bytes]] = []

    def start(bootstrap: str) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", SCRIPT, bootstrap, str(port), str(tmp_path)]
        running.append(subprocess.Popen(arguments))
        return running[-1]

    start.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield start
    for process in running:
        process.kill()
        process.wait()


def readiness(url: str) -> tuple[list[str], list[str]]:
    """What the gateway says is missing, and what is away."""
    said = httpx.get(f"{url}/readyz").json()
    return said["missing"], said["away"]


def kill_often(start: Any, bootstrap: str, sender: Sender, kills: int) -> None:
    """Start the gateway and kill it in the middle of its work, several times."""
    for _ in range(kills):
        process = start(bootstrap)
        seen = len(sender.feedback)
        wait_for(lambda seen=seen: len(sender.feedback) > seen + 60)  # type: ignore[misc]
        process.kill()
        process.wait()


def check_nothing_is_lost(start: Any, bootstrap: str, sender: Sender) -> None:
    """Once a last gateway says that nothing waits, the topics have every accepted id."""
    process = start(bootstrap)
    wait_for(lambda: httpx.get(f"{start.url}/healthz").status_code == 200)
    wait_for(lambda: metric(start.url, "ratchet_spool_records") == 0)
    assert metric(start.url, "ratchet_spool_lost") == 0
    assert metric(start.url, "ratchet_events_dropped_total") == 0
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    stored = {topic: ids(bootstrap, f"ratchet.{topic}") for topic in ("feedback", "inference")}
    assert sender.feedback
    assert sender.inferences
    assert sender.feedback <= stored["feedback"]
    assert sender.inferences <= stored["inference"]


def ids(bootstrap: str, topic: str) -> set[str]:
    """The ids of this task's events on a topic."""
    values = [record.value for record in read_all(bootstrap, topic)]
    return {json.loads(value)["id"] for value in values if value and TASK.encode() in value}


@pytest.mark.slow
def test_kills_while_kafka_is_there(kafka: Any, gateway: Any) -> None:
    """Killed three times under traffic with the broker up: every accepted id is on its topic."""
    ensure_topics(kafka.bootstrap)
    with Sender(gateway.url) as sender:
        kill_often(gateway, kafka.bootstrap, sender, 3)
    check_nothing_is_lost(gateway, kafka.bootstrap, sender)


@pytest.mark.connected
def test_kills_while_kafka_is_away(gateway: Any, tmp_path: Path) -> None:
    """Killed three times with no broker at all: what was accepted is delivered when there is one."""
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    with Sender(gateway.url) as sender:
        kill_often(gateway, bootstrap, sender, 3)
    with Supervisor(grace_s=0.1) as supervisor:
        supervisor.start(Child("kafka", broker_command(port), tmp_path / "broker.log", BrokerProbe(bootstrap)))
        ensure_topics(bootstrap)
        check_nothing_is_lost(gateway, bootstrap, sender)


@pytest.mark.connected
def test_kafka_comes_while_the_gateway_runs(gateway: Any, tmp_path: Path) -> None:
    """Feedback that waited on disk for the broker reaches the topic whole and in order.

    Readiness follows whether the gateway can serve: it lacks the routing tables until it has read them once,
    and a broker that is gone again is named, and no more.
    """
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    gateway(bootstrap)
    wait_for(lambda: httpx.get(f"{gateway.url}/healthz").status_code == 200)
    conversation = new_id()
    body = {"task": TASK, "conversation_id": conversation, "kind": "comment"}
    with httpx.Client(base_url=gateway.url) as client:
        for number in range(300):
            assert client.post("/v1/feedback", json=body | {"value": f"{number}"}).status_code == 202
    assert metric(gateway.url, "ratchet_spool_records") == 300
    wait_for(lambda: readiness(gateway.url) == (["routing tables", "model server"], ["broker"]))
    with Supervisor(grace_s=0.1) as supervisor:
        supervisor.start(Child("kafka", broker_command(port), tmp_path / "broker.log", BrokerProbe(bootstrap)))
        ensure_topics(bootstrap)
        wait_for(lambda: metric(gateway.url, "ratchet_spool_records") == 0)
        values = [json.loads(record.value or b"{}") for record in read_all(bootstrap, "ratchet.feedback")]
        wait_for(lambda: readiness(gateway.url) == (["model server"], []))
    wait_for(lambda: readiness(gateway.url) == (["model server"], ["broker"]))
    assert [value["value"] for value in values] == [f"{number}" for number in range(300)]

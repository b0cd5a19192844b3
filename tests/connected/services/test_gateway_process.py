"""The gateway as a process of its own on a real broker: ready, routed by the topic, stopped without loss."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from parts import JsonHandler

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.rollout_events import Rollout

PATIENCE_S = 30.0
SCRIPT = """
import sys
from pathlib import Path
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.keys import KeyFile, Keyring
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.serve import listen, serve
bootstrap, upstream, port, task = sys.argv[1:]
serve({task: TaskPolicy()}, base_model="tiny", upstreams=[upstream], bootstrap=bootstrap,
      listener=listen("127.0.0.1", int(port), keyed=False), keys=Keyring(KeyFile(Path("no such folder"))),
      publisher=KafkaPublisher(bootstrap, False, "test-gateway"))
"""


class Upstream(JsonHandler):
    """A model server that waits for the test's leave before it answers a chat."""

    leave = threading.Event()
    asked = threading.Event()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.set()
        self.leave.wait(PATIENCE_S)
        message = {"role": "assistant", "content": body["model"]}
        self.reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
def upstream() -> Iterator[str]:
    """The model server's address."""
    Upstream.leave.set()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Poll until it is so, or the process has died."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None, "the gateway died"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ready(url: str) -> bool:
    """Whether the gateway says that nothing is missing."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_gateway_process(kafka: Any, upstream: str) -> None:
    """Ready with tables from the topic; a newer one is followed; SIGTERM finishes what is in flight and flushes."""
    task = f"gw-{new_id()[-12:]}"
    ensure_topics(kafka.bootstrap)
    publisher = KafkaPublisher(kafka.bootstrap, False, "test")

    def table(version: int, stable: str) -> None:
        event = Rollout(
            id=new_id(),
            at=now(),
            task=task,
            rollout_id=new_id(),
            version=version,
            status="promoted",
            stage="",
            stage_started_at=now(),
            stable=stable,
            action="promote",
        )
        publisher.publish(event)
        assert publisher.flush(PATIENCE_S) == 0

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    chat = {"model": task, "messages": [{"role": "user", "content": "Hi"}]}
    answers: list[httpx.Response] = []

    def ask() -> httpx.Response:
        answers.append(httpx.post(f"{url}/v1/chat/completions", json=chat, timeout=PATIENCE_S))
        return answers[-1]

    table(1, f"{task}@v1-aaaaaaaa")
    arguments = [sys.executable, "-c", SCRIPT, kafka.bootstrap, upstream, str(port), task]
    with subprocess.Popen(arguments) as process:
        try:
            wait_for(lambda: ready(url), process)
            assert ask().headers["x-ratchet-adapter"] == f"{task}@v1-aaaaaaaa"
            table(2, f"{task}@v2-bbbbbbbb")
            wait_for(lambda: ask().headers["x-ratchet-adapter"] == f"{task}@v2-bbbbbbbb", process)
            Upstream.leave.clear()
            Upstream.asked.clear()
            last = threading.Thread(target=ask)
            last.start()
            assert Upstream.asked.wait(PATIENCE_S)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            Upstream.leave.set()
            last.join()
            assert process.wait(PATIENCE_S) == 0
        finally:
            Upstream.leave.set()
            process.kill()
    publisher.close()
    assert {answer.status_code for answer in answers} == {200}
    # other tests of this session put bytes there that are no events
    records = read_all(kafka.bootstrap, "ratchet.inference")
    stored = [json.loads(record.value) for record in records if task.encode() in (record.value or b"")]
    ours = {event["id"] for event in stored}
    assert ours == {answer.headers["x-ratchet-inference-id"] for answer in answers}


def test_a_taken_port_ends_with_one_sentence(kafka: Any, upstream: str) -> None:
    """A second gateway on the same port ends at once with a StartError that names the port."""
    port = upstream.rsplit(":", 1)[1]
    arguments = [sys.executable, "-c", SCRIPT, kafka.bootstrap, upstream, port, "support"]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode != 0
    assert f"StartError: gateway: cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr

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
from pathlib import Path
from typing import Any

import httpx
import pytest
from parts import JsonHandler

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import CHECK_S, read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.schemas.topics import GATEWAY

PATIENCE_S = 30.0
SCRIPT = """
import sys
from pathlib import Path
from ratchet.infra.kafka.spool import Spool
from ratchet.infra.kafka.spooled import SpooledPublisher
from ratchet.infra.keys import KeyFile, Keyring
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.serve import listen, serve
bootstrap, upstream, port, task, spool = sys.argv[1:]
serve({task: TaskPolicy()}, base_model="tiny", upstreams=[upstream], bootstrap=bootstrap,
      listener=listen("127.0.0.1", int(port), keyed=False), keys=Keyring(KeyFile(Path("no such folder"))),
      publisher=SpooledPublisher(bootstrap, False, "test-gateway", Spool(Path(spool), 2**20)))
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


class Running:
    """A gateway process, its task, and what it was asked and said."""

    def __init__(self, bootstrap: str, upstream: str, folder: Path) -> None:
        """Start it, with a routing table to begin with."""
        self.bootstrap = bootstrap
        self.task = f"gw-{new_id()[-12:]}"
        ensure_topics(bootstrap)
        self.table(1)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.answers: list[httpx.Response] = []
        arguments = [sys.executable, "-c", SCRIPT, bootstrap, upstream, str(port), self.task, str(folder / "spool")]
        self.process = subprocess.Popen(arguments)

    def adapter(self, version: int) -> str:
        """What the table of that version names as stable."""
        return f"{self.task}@v{version}-aaaaaaaa"

    def table(self, version: int) -> None:
        """Publish a table."""
        publisher = KafkaPublisher(self.bootstrap, False, "test")
        event = Rollout(
            id=new_id(),
            at=now(),
            task=self.task,
            rollout_id=new_id(),
            version=version,
            status="promoted",
            stage="",
            stage_started_at=now(),
            stable=self.adapter(version),
            action="promote",
        )
        publisher.publish(event)
        assert publisher.flush(PATIENCE_S) == 0
        publisher.close()

    def ask(self) -> str:
        """The adapter that answers."""
        chat = {"model": self.task, "messages": [{"role": "user", "content": "Hi"}]}
        self.answers.append(httpx.post(f"{self.url}/v1/chat/completions", json=chat, timeout=PATIENCE_S))
        assert self.answers[-1].status_code == 200
        return self.answers[-1].headers["x-ratchet-adapter"]

    def said(self) -> list[Gateway]:
        """What it said of itself."""
        records = read_all(self.bootstrap, GATEWAY.name)
        events = [parse(Gateway, record.value) for record in records if record.value]
        return [event for event in events if self.task in event.tables]

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Poll until it is so, or the process has died."""
        wait_for(what, self.process)

    def readiness(self) -> dict[str, Any]:
        """What it says of its readiness."""
        return httpx.get(f"{self.url}/readyz", timeout=PATIENCE_S).json()


Start = Callable[..., Running]


@pytest.fixture
def start(upstream: str, tmp_path: Path) -> Iterator[Start]:
    """Starts gateways."""
    running: list[Running] = []

    def begin(bootstrap: str) -> Running:
        running.append(Running(bootstrap, upstream, tmp_path))
        running[-1].wait_for(lambda: ready(running[-1].url))
        return running[-1]

    yield begin
    Upstream.leave.set()
    for one in running:
        one.process.kill()
        one.process.wait()


def test_gateway_process(kafka: Any, start: Start) -> None:
    """Ready with tables from the topic; a newer one is followed and acknowledged; SIGTERM finishes what is in flight.

    Everything is flushed, and its last word is that it left.
    """
    gateway = start(kafka.bootstrap)
    assert gateway.ask() == gateway.adapter(1)
    gateway.table(2)
    gateway.wait_for(lambda: bool(gateway.said()) and gateway.said()[-1].tables[gateway.task] == 2)
    assert gateway.ask() == gateway.adapter(2)
    Upstream.leave.clear()
    Upstream.asked.clear()
    last = threading.Thread(target=gateway.ask)
    last.start()
    assert Upstream.asked.wait(PATIENCE_S)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    Upstream.leave.set()
    last.join()
    assert gateway.process.wait(PATIENCE_S) == 0
    # other tests of this session put bytes there that are no events
    records = read_all(kafka.bootstrap, "ratchet.inference")
    stored = [json.loads(record.value) for record in records if gateway.task.encode() in (record.value or b"")]
    ours = {event["id"] for event in stored}
    assert ours == {answer.headers["x-ratchet-inference-id"] for answer in gateway.answers}
    *earlier, word = gateway.said()
    # the topic holds other tests' tables, too: what every gateway follows, it acknowledges
    assert (word.state, word.tables[gateway.task], word.in_flight) == ("left", 2, {})
    assert word.last_request.keys() == {gateway.adapter(1), gateway.adapter(2)}
    assert {event.state for event in earlier} == {"up"}
    assert len({event.gateway for event in (*earlier, word)}) == 1


@pytest.mark.connected
def test_a_gateway_that_is_cut_off_from_kafka_keeps_its_table_and_says_so(start: Start) -> None:
    """The broker hangs: requests go on by the last table, and what is away is named; the next table is acknowledged."""
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    with subprocess.Popen(broker_command(port)) as broker:
        try:
            wait_for(BrokerProbe(bootstrap), broker)
            gateway = start(bootstrap)
            gateway.wait_for(lambda: bool(gateway.said()))
            broker.send_signal(signal.SIGSTOP)
            cut_off = now()
            gateway.wait_for(lambda: "broker" in gateway.readiness()["away"])
            gateway.wait_for(lambda: gateway.readiness()["silent_s"]["routing tables"] > 2 * CHECK_S)
            assert gateway.ask() == gateway.adapter(1)
            assert ready(gateway.url)
            back = now()
            broker.send_signal(signal.SIGCONT)
            gateway.table(2)
            gateway.wait_for(lambda: gateway.ask() == gateway.adapter(2))
            gateway.wait_for(lambda: gateway.said()[-1].tables[gateway.task] == 2)
            gateway.wait_for(lambda: gateway.readiness()["away"] == [])
            # what it would have said meanwhile is of no use any more: one was under way, and only the newest waited
            assert len([word for word in gateway.said() if cut_off < word.at < back]) <= 2
        finally:
            broker.send_signal(signal.SIGCONT)
            broker.kill()


def test_a_taken_port_ends_with_one_sentence(kafka: Any, upstream: str, tmp_path: Path) -> None:
    """A second gateway on the same port ends at once with a StartError that names the port."""
    port = upstream.rsplit(":", 1)[1]
    arguments = [sys.executable, "-c", SCRIPT, kafka.bootstrap, upstream, port, "support", str(tmp_path / "spool")]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode != 0
    assert f"StartError: gateway: cannot listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr

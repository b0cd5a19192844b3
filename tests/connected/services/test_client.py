"""The client against a real gateway and broker: what it was given is on the topics, each once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.tail import read_all
from ratchet.services.client import Client

pytestmark = pytest.mark.connected
PATIENCE_S = 30.0
EXAMPLES = Path(__file__).parents[3] / "examples"
GATEWAY = """
import sys
from pathlib import Path
from ratchet.infra.settings import Settings
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.processes import run_gateway
bootstrap, port, home = sys.argv[1:]
run_gateway(Settings(home=Path(home), kafka_bootstrap=bootstrap, kafka_idempotence=False, gateway_port=int(port),
                     vllm_urls=["http://127.0.0.1:1"], tasks={"support": TaskPolicy(), "forked": TaskPolicy()}))
"""
# an app with two forked workers, all of which say which ids they sent and then just end
APP = """
import os
import sys
from ratchet.services.client import Client

kind, address, task = sys.argv[1:]
client = Client(address, task=task) if kind == "http" else Client.to_kafka(address, task=task)


def work() -> None:
    for _ in range(20):
        id = client.log_inference(model="m", latency_ms=5, prompt="Hi", content="Hello")
        os.write(1, f"{id} {client.feedback(id, thumb=True)}\\n".encode())


work()
client.flush()
work()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        work()
        sys.exit()
    children.append(child)
work()
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""


class Parts(NamedTuple):
    """The broker and the gateway before it, which a test starts when it likes."""

    bootstrap: str
    url: str
    start_gateway: Callable[[], None]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """An embedded broker, and a gateway that is not up yet."""
    folder = tmp_path_factory.mktemp("client")
    port, gateway_port = free_port(), free_port()
    bootstrap = f"127.0.0.1:{port}"
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        if not running:
            running.append(subprocess.Popen([sys.executable, "-c", GATEWAY, bootstrap, str(gateway_port), str(folder)]))

    with Supervisor(grace_s=0.1) as supervisor:
        supervisor.start(Child("kafka", broker_command(port), folder / "broker.log", BrokerProbe(bootstrap)))
        ensure_topics(bootstrap)
        yield Parts(bootstrap, f"http://127.0.0.1:{gateway_port}", start)
        for process in running:
            process.terminate()
            process.wait(PATIENCE_S)


def stored(bootstrap: str, task: str) -> dict[str, Counter[str]]:
    """How often each id of a task's events is on its topic."""
    found: dict[str, Counter[str]] = {}
    for topic in ("inference", "feedback"):
        values = [json.loads(record.value) for record in read_all(bootstrap, f"ratchet.{topic}") if record.value]
        found[topic] = Counter(value["id"] for value in values if value["task"] == task)
    return found


def test_nothing_is_lost_while_the_gateway_is_away(parts: Parts) -> None:
    """Events that find no gateway wait in the queue, and are all on the topics, once, when there is one."""
    with Client(parts.url, task="support") as client:
        inferences = [client.log_inference(model="m", latency_ms=5, prompt="Hi", content="x" * n) for n in range(700)]
        opinions = [client.feedback(id, thumb=True) for id in inferences[:20]]
        assert client.flush(0.5) == 720
        parts.start_gateway()
        assert client.flush(PATIENCE_S) == 0
        assert (client.accepted, client.refused, client.dropped) == (720, 0, 0)
    found = stored_when(parts, "support", 720)
    assert found["inference"] == Counter(inferences)
    assert found["feedback"] == Counter(opinions)


def stored_when(parts: Parts, task: str, total: int) -> dict[str, Counter[str]]:
    """What is stored, once that many records are: the gateway answers before Kafka has confirmed."""
    for _ in range(100):
        found = stored(parts.bootstrap, task)
        if sum(map(len, found.values())) >= total:
            break
    return found


@pytest.mark.parametrize("kind", ["http", "kafka"])
def test_forked_workers_just_end(parts: Parts, kind: str) -> None:
    """An app that forks with events in its queue and never flushes: all of every process arrive, none twice."""
    parts.start_gateway()
    task, address = ("forked", parts.url) if kind == "http" else ("beside", parts.bootstrap)
    argv = [sys.executable, "-c", APP, kind, address, task]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    sent = [line.split() for line in done.stdout.splitlines()]
    assert len(sent) == 100
    found = stored_when(parts, task, 200)
    assert found["inference"] == Counter(inference for inference, _ in sent)
    assert found["feedback"] == Counter(opinion for _, opinion in sent)

"""What connected tests and fault tests share: how brokers are started, waiting, and a gateway's figures."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_ports_in_a_row
from ratchet.infra.embedded.supervisor import Child, Supervisor

# Apache Kafka as released, beside the checkout on machines that have it.
_BESIDE = Path(__file__).resolve().parents[1].parent / "shared" / "kafka" / "start"
APACHE_KAFKA = Path(os.environ.get("RATCHET_TEST_KAFKA_START", _BESIDE))
NAMED_KAFKA = os.environ.get("RATCHET_TEST_KAFKA")
BROKERS = ["named"] if NAMED_KAFKA else ["embedded", "apache"]
"""What a test against Kafka runs on, one after the other."""
PATIENCE_S = 40.0


@dataclass(frozen=True)
class Broker:
    """A Kafka broker to test against."""

    bootstrap: str
    embedded: bool
    """Whether it is the embedded one, which knows no idempotent producers and no transactions."""


def has_apache() -> bool:
    """Whether this machine can start a real Kafka."""
    return APACHE_KAFKA.is_file() and shutil.which("java") is not None


def broker_argv(kind: str, port: int, folder: Path) -> list[str]:
    """The command line of an ``embedded`` or ``apache`` broker; skips the test where there is no such thing.

    Apache's controller listens on the next port, and what it stores in ``folder`` outlives it.
    """
    if kind == "embedded":
        return broker_command(port)
    if not has_apache():
        pytest.skip(f"no Apache Kafka at {APACHE_KAFKA} or no java, and RATCHET_TEST_KAFKA names no broker")
    return [str(APACHE_KAFKA), str(port), str(folder / "data")]


@contextmanager
def running_broker(kind: str, folder: Path) -> Iterator[Broker]:
    """A broker of that kind which holds nothing; it ends with the block."""
    port = free_ports_in_a_row(2)  # Apache's controller listens on the second
    bootstrap = f"127.0.0.1:{port}"
    with Supervisor() as supervisor:
        command = broker_argv(kind, port, folder)
        log = folder / "broker.log"
        supervisor.start(Child(kind, command, log, BrokerProbe(bootstrap), ready_timeout_s=4 * PATIENCE_S))
        yield Broker(bootstrap, embedded=kind == "embedded")


class JsonHandler(http.server.BaseHTTPRequestHandler):
    """Answers with JSON and says nothing of it."""

    def reply(self, value: Any, status: int = 200) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        pass


def wait_for(what: Callable[[], bool], patience_s: float = PATIENCE_S, every_s: float = 0.02) -> None:
    """Poll until it is so; an answer that does not come is not so.

    Looking takes at most a third of the time, so that what is waited for gets on.
    """
    deadline = time.monotonic() + patience_s
    while True:
        begun = time.monotonic()
        try:
            if what():
                return
        except httpx.TransportError:
            pass  # not up yet
        now = time.monotonic()
        assert now < deadline, "it did not come true"
        time.sleep(max(every_s, min(2 * (now - begun), 1.0)))


def metric(url: str, name: str) -> float:
    """One figure of the gateway's exposition, summed over the labels that ``name`` leaves open."""
    # nothing is encrypted here, and reading the certificates takes longer than the request
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE_S, verify=False).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

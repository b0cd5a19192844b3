"""What connected tests and fault tests share: how brokers are started, waiting, and a gateway's figures."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.infra.embedded.broker import broker_command

# Apache Kafka as released, beside the checkout on machines that have it.
_BESIDE = Path(__file__).resolve().parents[1].parent / "shared" / "kafka" / "start"
APACHE_KAFKA = Path(os.environ.get("RATCHET_TEST_KAFKA_START", _BESIDE))
NAMED_KAFKA = os.environ.get("RATCHET_TEST_KAFKA")
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
    """Poll until it is so; an answer that does not come is not so."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if what():
                return
        except httpx.TransportError:
            pass  # not up yet
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(every_s)


def metric(url: str, name: str) -> float:
    """One figure of the gateway's exposition, summed over the labels that ``name`` leaves open."""
    # nothing is encrypted here, and reading the certificates takes longer than the request
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE_S, verify=False).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

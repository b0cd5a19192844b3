"""Real parts for the connected tests: started once a session on free ports, stopped at its end.

The parts run under the product's own supervisor, so none outlives a killed test run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import BrokerProbe, broker_command, wait_for_broker
from ratchet.infra.embedded.ports import free_port, free_ports_in_a_row
from ratchet.infra.embedded.supervisor import Child, Supervisor

# Apache Kafka as released, beside the checkout on machines that have it.
APACHE_KAFKA = Path(__file__).resolve().parents[2].parent / "shared" / "kafka" / "start"
NAMED_KAFKA = os.environ.get("RATCHET_TEST_KAFKA")
_REAL_PARTS = {"clickhouse", "kafka"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a real part."""
    for item in items:
        if _REAL_PARTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.connected)


@dataclass(frozen=True)
class Broker:
    """A Kafka broker to test against."""

    bootstrap: str
    embedded: bool
    """Whether it is the embedded one, which knows no idempotent producers and no transactions."""


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DSN of an embedded ClickHouse, empty at the session's start."""
    folder, port = tmp_path_factory.mktemp("clickhouse"), free_port()
    command = clickhouse_server.command(port, folder / "data")
    with Supervisor() as supervisor:
        supervisor.start(
            Child("clickhouse", command, folder / "server.log", lambda: clickhouse_server.answers_ping(port))
        )
        yield f"http://127.0.0.1:{port}/ratchet"


@pytest.fixture(scope="session", params=["named"] if NAMED_KAFKA else ["embedded", "apache"])
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The embedded broker and then a real Apache Kafka; only `RATCHET_TEST_KAFKA` where that is set."""
    if request.param == "named":
        assert NAMED_KAFKA is not None
        wait_for_broker(NAMED_KAFKA)
        yield Broker(NAMED_KAFKA, embedded=False)
        return
    folder = tmp_path_factory.mktemp("kafka")
    port = free_ports_in_a_row(2)  # Apache's controller listens on the second
    if request.param == "embedded":
        command = broker_command(port)
    elif APACHE_KAFKA.is_file() and shutil.which("java"):
        command = [str(APACHE_KAFKA), str(port), str(folder / "data")]
    else:
        pytest.skip(f"no Apache Kafka at {APACHE_KAFKA} or no java, and RATCHET_TEST_KAFKA names no broker")
    bootstrap = f"127.0.0.1:{port}"
    with Supervisor() as supervisor:
        supervisor.start(Child(request.param, command, folder / "broker.log", BrokerProbe(bootstrap)))
        yield Broker(bootstrap, embedded=request.param == "embedded")

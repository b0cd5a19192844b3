"""Real parts for the connected tests: started once a session on free ports, stopped at its end.

The parts run under the product's own supervisor, so none outlives a killed test run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from parts import NAMED_KAFKA, Broker, broker_argv

from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import BrokerProbe, wait_for_broker
from ratchet.infra.embedded.ports import free_port, free_ports_in_a_row
from ratchet.infra.embedded.supervisor import Child, Supervisor

_REAL_PARTS = {"clickhouse", "kafka"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a real part."""
    for item in items:
        if _REAL_PARTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.connected)


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
def kafka(request: pytest.FixtureRequest) -> Broker:
    """The embedded broker and then a real Apache Kafka; only `RATCHET_TEST_KAFKA` where that is set."""
    broker: Broker = request.getfixturevalue(f"{request.param}_kafka")
    return broker


@pytest.fixture(scope="session")
def named_kafka() -> Broker:
    """The broker that `RATCHET_TEST_KAFKA` names."""
    assert NAMED_KAFKA is not None
    wait_for_broker(NAMED_KAFKA)
    return Broker(NAMED_KAFKA, embedded=False)


@pytest.fixture(scope="session")
def embedded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The embedded broker."""
    yield from _started("embedded", tmp_path_factory.mktemp("kafka"))


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Apache Kafka, once a session: a parametrized fixture would be started anew for every file of tests."""
    yield from _started("apache", tmp_path_factory.mktemp("kafka"))


def _started(kind: str, folder: Path) -> Iterator[Broker]:
    port = free_ports_in_a_row(2)  # Apache's controller listens on the second
    command = broker_argv(kind, port, folder)
    bootstrap = f"127.0.0.1:{port}"
    with Supervisor() as supervisor:
        supervisor.start(Child(kind, command, folder / "broker.log", BrokerProbe(bootstrap)))
        yield Broker(bootstrap, embedded=kind == "embedded")

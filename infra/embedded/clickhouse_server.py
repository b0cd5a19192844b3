"""The embedded ClickHouse: chDB behind ClickHouse's HTTP interface, one process on loopback.

Run by: ``python -m ratchet.infra.embedded.clickhouse_server --port 18123 --data .ratchet/clickhouse``

It ends on SIGTERM or SIGINT after the statements that run, with status 0; killed in any
other way it keeps every acknowledged insert. Whatever keeps it from starting is one
sentence on standard error and status 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from ratchet.infra.embedded.ports import LOOPBACK, port_taken
from ratchet.schemas.errors import StartError


def command(port: int, data: Path) -> list[str]:
    """The command line that starts this server from any working directory.

    Raises:
        StartError: the port is taken.
    """
    if port_taken(LOOPBACK, port):
        raise StartError(f"ClickHouse cannot listen on {LOOPBACK}:{port}: another program does")
    module = "ratchet.infra.embedded.clickhouse_server"
    return [sys.executable, "-m", module, "--port", str(port), "--data", str(data.absolute())]


def answers_ping(port: int, timeout_s: float = 1.0) -> bool:
    """Whether the server on this port answers statements now."""
    connection = HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def serve(port: int, data: Path) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        StartError: the port is taken, or the data folder cannot be used.
    """
    import uvicorn

    from ratchet.infra.embedded.clickhouse_engine import Engine
    from ratchet.infra.embedded.clickhouse_http import ClickHouseHttp

    data = data.absolute()
    listener = _listen(port)
    engine = Engine(data)
    app = ClickHouseHttp(engine)
    config = uvicorn.Config(
        app, lifespan="off", access_log=False, log_level="warning", timeout_graceful_shutdown=10, server_header=False
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        app.close()
        engine.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        # listens before the engine opens: early clients wait instead of being refused
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise StartError(f"ClickHouse cannot listen on {LOOPBACK}:{port}: {error.strerror}") from error
    return listener


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and serve; returns the exit status."""
    parser = argparse.ArgumentParser(prog="clickhouse_server", description="chDB behind ClickHouse's HTTP interface")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--data", type=Path, required=True, help="data folder, of one process at a time")
    given = parser.parse_args(arguments)
    # times without a zone are UTC, on whatever machine the data is read
    os.environ["TZ"] = "UTC"
    time.tzset()
    # uvicorn raises the signal again once it has shut down: then, and before it runs, the process ends with 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        serve(given.port, given.data)
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

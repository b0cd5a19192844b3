"""The embedded ClickHouse as a process: what it says when it cannot start, and what a kill leaves."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest
from parts import wait_for

from ratchet.infra.clickhouse.client import connect
from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.ports import LOOPBACK, free_port
from ratchet.schemas.errors import StartError, StoreError

pytestmark = pytest.mark.connected


def start(port: int, data: Path, cwd: Path) -> subprocess.Popen[bytes]:
    """The server, answering."""
    process = subprocess.Popen(clickhouse_server.command(port, data), cwd=cwd, stderr=subprocess.PIPE)
    wait_for(lambda: clickhouse_server.answers_ping(port))
    return process


def test_a_kill_in_mid_insert_keeps_every_acknowledged_row(tmp_path: Path) -> None:
    """SIGKILL while batches stream in; after a restart, from another working directory too, all of them are there."""
    port = free_port()
    lines = b"\n".join(b'{"n": %d, "pad": "%s"}' % (n, b"x" * 200) for n in range(2_000))
    server = start(port, tmp_path / "data", tmp_path)
    acknowledged = 0
    with connect(f"http://{LOOPBACK}:{port}/default") as store:
        store.command("CREATE TABLE t (n UInt64, pad String) ENGINE = MergeTree ORDER BY n")
        for round_ in range(2):
            sent = 0
            with pytest.raises(StoreError):  # noqa: PT012
                while True:
                    if sent == 3:
                        server.kill()  # and go on at once
                    acknowledged += store.insert_json("t", lines)
                    sent += 1
            server.wait()
            server = start(port, tmp_path / "data", [Path("/"), tmp_path][round_])
            (row,) = store.query_sql("SELECT count() AS n FROM t")
            assert row["n"] >= acknowledged >= 6_000
            assert row["n"] % 2_000 == 0, "a batch is stored whole or not at all"
        assert not list((tmp_path / "data" / "inserts").iterdir())
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0


def test_a_data_folder_belongs_to_one_process(tmp_path: Path) -> None:
    """The second one ends with one sentence that names the first."""
    port = free_port()
    first = start(port, tmp_path / "data", tmp_path)
    try:
        second = subprocess.run(
            clickhouse_server.command(free_port(), tmp_path / "data"), capture_output=True, text=True, timeout=30
        )
        assert second.returncode == 1
        assert second.stderr == f"the ClickHouse data folder {tmp_path / 'data'} is in use by process {first.pid}\n"
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(20) == 0


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """Both where the command is built and where somebody was faster."""
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            clickhouse_server.command(port, tmp_path)
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            clickhouse_server.serve(port, tmp_path)


def test_an_unusable_folder_is_one_sentence(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "data").write_text("")
    run = subprocess.run(
        clickhouse_server.command(free_port(), tmp_path / "data"), capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 1
    assert run.stderr.startswith("ClickHouse cannot use the data folder")
    assert run.stderr.count("\n") == 1

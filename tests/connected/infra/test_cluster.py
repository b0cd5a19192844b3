"""The cluster's DDL, run as far as one engine without peers goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
<clickhouse>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <macros><shard>1</shard><replica>r1</replica></macros>
  <tcp_port>9000</tcp_port>
  <remote_servers><here><shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard></here></remote_servers>
</clickhouse>
"""


@pytest.mark.connected
def test_a_cluster_of_one_counts_each_event_once(tmp_path: Path) -> None:
    """Every table can be made replicated; through the Distributed layer views and rollups say the same as ever."""
    (tmp_path / "config.xml").write_text(CONFIG)
    command = [sys.executable, str(Path(__file__).with_name("cluster_of_one.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    tables, made = found.pop("replicated")
    assert tables == made > 10
    total = sum(range(20))
    assert found == {
        "stored": [40],
        "once": [20, total],
        "within": [0],
        "votes": [0],
        "live": [20, total, 20],
        "open": [0],
        "rolled": [20, total, 20],
    }

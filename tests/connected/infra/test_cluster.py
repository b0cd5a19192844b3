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
    output, errors = tmp_path / "output", tmp_path / "errors"
    # files and no pipes: those would be waited for as long as anything that the engine started has them
    with output.open("wb") as to, errors.open("wb") as errors_to:
        subprocess.Popen(command, stdout=to, stderr=errors_to, start_new_session=True).wait(timeout=100)
    assert output.read_bytes(), errors.read_text()[-3000:]
    found = json.loads(output.read_bytes())
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

"""The gateway's disk is full, by its own limit or for real, while Kafka is away: nothing that was accepted is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from parts import metric, wait_for

from ratchet.infra.clock import new_id

DISK_MB = 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("full", ["limit", "disk"])
def test_no_more_room(make_world: Any, full: str, request: pytest.FixtureRequest, show: Any) -> None:
    """Answers reach users, and those that are not logged are counted; feedback and events are told to come again."""
    home = request.getfixturevalue("small_disk") / "home" if full == "disk" else None
    world = make_world("embedded", home=home, spool_mb=512 if full == "disk" else 16, padding=20_000)
    world.start(broker=False)
    world.users.start()
    wait_for(lambda: metric(world.url, "ratchet_events_dropped_total") > 200, 120, 0.1)
    feedback = {"id": new_id(), "task": "support", "inference_id": new_id(), "kind": "comment", "value": "x" * 50_000}
    refused = httpx.post(f"{world.url}/v1/feedback", json=feedback, timeout=30)
    told = world.journal.look()
    world.start_broker()
    wait_for(lambda: metric(world.url, "ratchet_spool_records") < 200, 60, 0.1)
    world.progress()  # by itself it accepts again
    dropped_by_then = metric(world.url, "ratchet_events_dropped_total")
    world.progress(300)
    dropped = {
        topic: int(metric(world.url, f'ratchet_events_dropped_total{{topic="{topic}"')) for topic in
        ("inference", "feedback", "shadow")
    }  # fmt: skip
    world.settle()
    stored = world.stored()
    unlogged = [id for id in world.journal.ids["inference"] if id not in stored]
    # an answer whose event was dropped is not accepted: the counter says so
    world.journal.ids["inference"] = [id for id in world.journal.ids["inference"] if id in stored]
    show(
        world, full=full, dropped=dropped["inference"], answered_and_not_logged=len(unlogged),
        refused={line: n for line, n in told.items() if line.startswith("refused ")},
    )  # fmt: skip
    assert dropped == {"inference": len(unlogged), "feedback": 0, "shadow": 0}
    assert sum(dropped.values()) == dropped_by_then, "nothing more is dropped once there is room"
    assert told["refused chat"] == told["failed"] == told["cut"] == 0
    assert told["refused feedback 503"] > 0
    assert told["refused events 503"] > 0
    assert refused.status_code == 503
    assert "Nothing was taken, send it again" in refused.json()["error"]["message"]

"""The training worker is killed in every phase of a job, and its disk is full: one adapter once, or a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.world import Part, World
from parts import wait_for
from tiny_model import write_tiny_llama
from training_place import Place

from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.kafka.admin import lag
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.schemas.events import Training
from ratchet.trainers.registry import WEIGHTS, file_sha256

DISK_MB = 8
RECIPE = {"lora_r": 4, "max_length": 128, "batch_size": 4, "epochs": 20.0, "checkpoint_s": 0.3, "threads": 1}
PHASES = {
    "planned": "jobs/*/job.json",
    "trained in part": "jobs/*/checkpoint-*/seal.json",
    "trained": "jobs/*/result.json",
    "placed": "adapters/support@*",
    "registered": "adapters/support@*/manifest.json",
    "remembered": "jobs/*/outcome.json",
}
"""What a job leaves behind as it gets on."""


@contextmanager
def training(make_world: Any, tmp_path: Path, home: Path, pairs: int) -> Iterator[tuple[World, Part, Training]]:
    """A world with a worker that does not run yet, pairs to learn from, and a request on the topic."""
    model = write_tiny_llama(tmp_path / "tiny")
    world = make_world("embedded", home=home)
    file = tmp_path / "ratchet.toml"
    policy = "".join(f"{name} = {json.dumps(value)}\n" for name, value in RECIPE.items())
    table = f'base_model_path = "{model}"\n[tasks.support]\n[tasks.support.training]\n{policy}retry_wait_s = 0\n'
    file.write_text(file.read_text().replace("[tasks.support]\n", table))
    worker = Part(
        "worker", lambda: [sys.executable, "-m", "ratchet.services.cli.main", "train-worker"],
        tmp_path / "worker.log", lambda: True,
    )  # fmt: skip
    world.clickhouse.start()
    world.model.start()
    with connect(world.dsn) as store:
        migrate(store)
        home.mkdir(exist_ok=True)
        place = Place(store, home, model, task="support")
        place.pairs(pairs)
    world.start_broker()
    request = place.request()
    publisher = KafkaPublisher(world.bootstrap, False, "test")
    publisher.publish(request)
    assert publisher.flush(30) == 0
    publisher.close()
    try:
        yield world, worker, request
    finally:
        if worker._supervisor is not None:
            worker.kill()


def ended(world: World) -> list[dict[str, Any]]:
    """The last words on the training topic, as often as they were said."""
    return [event for event in world.on_topic("training") if event["state"] in ("finished", "failed", "cancelled")]


def test_worker_killed_in_every_phase(make_world: Any, tmp_path: Path, record_property: Any) -> None:
    """kill -9 when it has planned, trained in part, trained, placed, registered and remembered: one adapter, once."""
    home = tmp_path / "home"
    with training(make_world, tmp_path, home, pairs=40) as (world, worker, request):
        for phase, mark in PHASES.items():
            worker.start()
            wait_for(lambda mark=mark: any(home.glob(mark)), 200, 0.001)
            worker.kill()
            assert any(home.glob(mark)), phase
        worker.start()
        wait_for(lambda: bool(ended(world)) and lag(world.bootstrap, "trainer") == 0, 200, 0.2)
        assert worker.stop() == 0
        finished = {event["id"]: event for event in ended(world)}
        (last,) = finished.values()
        assert (last["state"], last["job_id"]) == ("finished", request.job_id), last
        assert {event["name"] for event in world.on_topic("adapter")} == {last["adapter"]}
        assert len({event["id"] for event in world.on_topic("adapter")}) == 1
        (folder,) = home.glob("adapters/support@*")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        assert folder.name == manifest["name"] == last["adapter"]
        assert file_sha256(folder / WEIGHTS) == manifest["weights_sha256"]
        result = json.loads((home / "jobs" / request.job_id / "result.json").read_bytes())
        assert result["resumed_after"] > 0, "the run that was killed was gone on with"
        starts = [event for event in world.on_topic("training") if event["state"] == "started"]
        record_property(
            "figures",
            {"kills": len(PHASES), "adapters": 1, "starts": len(starts), "resumed_after": result["resumed_after"]},
        )


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


def test_no_room_for_what_is_trained(make_world: Any, tmp_path: Path, small_disk: Path) -> None:
    """A disk that fills up in mid-run ends the job with the system's words; nothing is registered."""
    with training(make_world, tmp_path, small_disk, pairs=40) as (world, worker, _):
        worker.start()
        wait_for(lambda: any(small_disk.glob("jobs/*/progress.jsonl")), 120, 0.01)
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"x" * 65_536)
                    file.flush()
            except OSError:
                pass
        wait_for(lambda: bool(ended(world)), 120, 0.2)
        worker.kill()
        (last,) = {event["id"]: event for event in ended(world)}.values()
        assert last["state"] == "failed"
        assert "No space left on device" in last["reason"]
        assert not list(small_disk.glob("adapters/support@*"))
        assert world.on_topic("adapter") == []

"""`ratchet adapters gc` on a real broker, ClickHouse's engine and an artifact store: what goes, and what never does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.artifacts import ArtifactStore
from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.events import Adapter
from ratchet.schemas.rollout_events import Rollout
from ratchet.services import wiring
from ratchet.services.cli.main import app
from ratchet.services.collecting import Report, collect
from ratchet.trainers import registry
from ratchet.trainers.adapters.shelf import Shelf
from ratchet.trainers.registry import CONFIG, MANIFEST, ORIGIN, WEIGHTS, next_number

pytestmark = pytest.mark.connected
OLD = 1_700_000_000


class Machine:
    """A home with adapters, a store that they are published in, and the parts that the settings name."""

    def __init__(self, traffic: Any, bootstrap: str) -> None:
        self.traffic, self.bootstrap = traffic, bootstrap
        self.home: Path = traffic.shelf / "home"
        self.store = ArtifactStore(str(traffic.shelf / "store"))
        self.adapters = [self._adapter(number) for number in range(1, 6)]
        self.publisher = KafkaPublisher(bootstrap, False, "test")

    def _adapter(self, number: int) -> Adapter:
        made = self.traffic.shelf / f"made{number}"
        made.mkdir()
        (made / WEIGHTS).write_bytes(os.urandom(1000))
        (made / CONFIG).write_text("{}")
        job = new_id()
        adapter = registry.register(
            registry.place(self.home, self.traffic.task, job, made, []),
            task=self.traffic.task, job_id=job, at=now(), method="dpo", base_model="m", dataset="d", params={},
            dataset_sha256="0" * 64, parents=[], metrics={}, evaluation={}, rejected="too bad" if number == 2 else None,
        )  # fmt: skip
        self.traffic.write(adapter)
        Shelf(self.home, self.store).push(adapter)
        return adapter

    def table(self, version: int, **fields: Any) -> Rollout:
        """A routing table, in Kafka and ClickHouse."""
        body = {
            "id": new_id(), "at": now(), "task": self.traffic.task, "rollout_id": new_id(), "version": version,
            "status": "promoted", "stage": "100%", "stage_started_at": now(), "stable": "base", "action": "promote",
        }  # fmt: skip
        table = Rollout.model_validate(body | fields)
        self.publisher.publish(table)
        assert self.publisher.flush(10) == 0
        self.traffic.write(table)
        return table

    def said(self) -> list[tuple[str, str]]:
        """What the registry's topic says, in order."""
        events = [parse(Adapter, record.value or b"") for record in read_all(self.bootstrap, "ratchet.adapter")]
        return [(event.name, event.status) for event in events]

    def left(self) -> list[str]:
        """The adapters that still have weights here."""
        return [one.name for one in self.adapters if (Path(one.path) / WEIGHTS).is_file()]


@pytest.fixture
def machine(traffic: Any, clickhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Five adapters: one stable, one before it, a rejected one, one that nothing needs, one that waits."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    config = tmp_path / "ratchet.toml"
    config.write_text(f'home = "home"\nartifacts = "store"\n[tasks.{traffic.task}]\n')
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", address)
    monkeypatch.setenv("RATCHET_KAFKA_IDEMPOTENCE", "false")
    with Supervisor(grace_s=0.2) as supervisor:
        supervisor.start(Child("broker", broker_command(port), tmp_path / "broker.log", BrokerProbe(address)))
        ensure_topics(address)
        made = Machine(traffic, address)
        first, _, third, fourth, _ = (one.name for one in made.adapters)
        made.table(1, stable=first)
        made.table(2, stable=third, previous=first)
        made.table(3, stable=fourth, previous=third)
        yield made
        made.publisher.close()
        supervisor.stop()


def mine(report: Report, machine: Machine) -> list[str]:
    """What a collection retires of this test's task; other tests' adapters are not on this machine."""
    names = {one.name for one in machine.adapters}
    return [str(one["name"]) for one in report.retired if one["name"] in names]


def test_only_what_nothing_can_reach_is_retired(machine: Machine) -> None:
    """Files here and in the store go, manifests say why, numbers are not given again; a second run finds nothing."""
    s = wiring.settings()
    first, rejected, third, fourth, waiting = (one.name for one in machine.adapters)
    listed = CliRunner().invoke(app, ["adapters", "gc", "--keep", "0", "--dry-run", "--json"], catch_exceptions=False)
    told = json.loads(listed.stdout)
    assert {one["name"] for one in told["retired"]} == {first, rejected}
    reasons = {one["name"]: one["reason"] for one in told["kept"]}
    task = machine.traffic.task
    assert reasons[third] == f"previous of {task}"
    assert reasons[fourth] == f"stable of {task}"
    assert reasons[waiting] == "waits for its rollout"
    assert (len(machine.left()), machine.said()) == (5, [])

    assert mine(collect(s, keep=3, keep_jobs=9, dry_run=True), machine) == [rejected], "the first was stable once"
    refused = collect(s, keep=0, keep_jobs=9, dry_run=False, sure=lambda report: False)
    assert (refused.dry_run, len(machine.left())) == (True, 5)

    done = collect(s, keep=0, keep_jobs=9, dry_run=False, settle=lambda: None)
    assert set(mine(done, machine)) == {first, rejected}
    assert done.bytes >= 2000
    assert machine.left() == [third, fourth, waiting]
    assert sorted(machine.said()) == sorted([(first, "retired"), (rejected, "retired")])
    folder = machine.home / "adapters" / first
    assert {path.name for path in folder.iterdir()} == {MANIFEST, ORIGIN}
    buried = registry.read(folder)
    assert (buried.status, buried.reason) == ("retired", "neither served nor to be rolled back to")
    assert buried.model_copy(update={"id": "", "at": "", "status": "", "reason": ""}) == machine.adapters[0].model_copy(
        update={"id": "", "at": "", "status": "", "reason": ""}
    )
    assert parse(Adapter, machine.store.manifest(first) or b"").status == "retired"
    assert not (Path(machine.store.address) / first / WEIGHTS).exists()
    assert (Path(machine.store.address) / third / WEIGHTS).is_file()
    assert next_number(task, [path.name for path in (machine.home / "adapters").iterdir()]) == 6

    machine.traffic.write(
        *(parse(Adapter, record.value or b"") for record in read_all(machine.bootstrap, "ratchet.adapter"))
    )
    again = collect(s, keep=0, keep_jobs=9, dry_run=False, settle=lambda: None)
    assert (mine(again, machine), len(machine.said())) == ([], 2)


def test_what_comes_into_use_meanwhile_stays(machine: Machine) -> None:
    """A rollout that began before the controller heard of the retirement keeps its adapter, registered as before."""
    first, rejected, third, fourth, _ = machine.adapters

    def begun() -> None:
        machine.table(
            4, stable=fourth.name, previous=third.name, candidate=first.name, status="running", action="start"
        )

    done = collect(wiring.settings(), keep=0, keep_jobs=9, dry_run=False, settle=begun)
    assert mine(done, machine) == [rejected.name]
    assert machine.said()[-1] == (first.name, "registered")
    assert Shelf(machine.home).folder(first) == Path(first.path)


def test_a_collection_that_was_killed_is_finished_by_the_next(machine: Machine) -> None:
    """An adapter that is retired and still has files loses them; Kafka away removes nothing."""
    first, *_ = machine.adapters
    machine.traffic.write(first.model_copy(update={"status": "retired", "reason": "old", "at": now()}))
    s = wiring.settings()
    with pytest.raises(BrokerError):
        collect(s.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"}), keep=0, keep_jobs=9, dry_run=False)
    assert len(machine.left()) == 5
    collect(s, keep=9, keep_jobs=9, dry_run=False, settle=lambda: None)
    assert first.name not in machine.left()
    assert (first.name, "retired") not in machine.said(), "it was said before"


def test_scratch_jobs_and_uploads(machine: Machine) -> None:
    """Abandoned folders go, young ones stay; an ended job keeps its words, a running one everything."""
    shelf, jobs = machine.home / "adapters", machine.home / "jobs"
    for name, age in ((".placing-old", OLD), (".placing-new", None)):
        (shelf / name).mkdir()
        (shelf / name / WEIGHTS).write_bytes(b"half")
        if age:
            os.utime(shelf / name, (age, age))
    for number, name in enumerate(("first", "second", "third")):
        (jobs / name / "adapter").mkdir(parents=True)
        (jobs / name / "adapter" / WEIGHTS).write_bytes(b"weights")
        (jobs / name / "train.jsonl").write_bytes(b"{}")
        (jobs / name / "outcome.json").write_bytes(b"{}")
        os.utime(jobs / name / "outcome.json", (OLD + number, OLD + number))
    (jobs / "third" / "outcome.json").unlink()
    upload = Path(machine.store.address) / ".uploading" / "x" / WEIGHTS
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"half")
    os.utime(upload, (OLD, OLD))
    done = collect(wiring.settings(), keep=9, keep_jobs=1, dry_run=False, settle=lambda: None)
    assert (done.scratch, done.jobs, done.uploads) == ([".placing-old"], ["first"], ["x"])
    assert (shelf / ".placing-new").is_dir()
    assert not (shelf / ".placing-old").exists()
    assert [path.name for path in (jobs / "first").iterdir()] == ["outcome.json"]
    assert (jobs / "second" / "adapter" / WEIGHTS).is_file()
    assert (jobs / "third" / "train.jsonl").is_file()
    assert not upload.exists()

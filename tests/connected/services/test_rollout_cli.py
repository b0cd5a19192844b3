"""The controller on a real broker: seeded state topics, and people who ask through the command line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from parts import wait_for
from typer.testing import CliRunner

from ratchet.infra.clock import now
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.errors import RolloutError
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.services import wiring
from ratchet.services.cli import adapters, rollout
from ratchet.services.controller.follow import control
from ratchet.services.controller.seed import seed_state_topics

pytestmark = pytest.mark.connected


def manifest(traffic: Any, number: int) -> Any:
    """An adapter in ClickHouse's registry."""
    adapter = traffic.adapter(number)
    traffic.write(adapter)
    return adapter


def promoted(traffic: Any, adapter: Any) -> Rollout:
    """The table of a task whose rollout was promoted, in ClickHouse."""
    body = {
        "id": traffic.new_id(), "at": traffic.start, "task": traffic.task, "rollout_id": traffic.new_id(), "version": 7,
        "status": "promoted", "stage": "100%", "stage_started_at": traffic.start, "stable": adapter.name,
        "candidate": adapter.name, "previous": "base", "action": "promote", "operator_seen": traffic.new_id(),
    }  # fmt: skip
    table = Rollout.model_validate(body)
    traffic.write(table.model_copy(update={"version": 6, "id": traffic.new_id(), "stable": "base"}), table)
    return table


def test_empty_state_topics_are_seeded_once_from_clickhouse(traffic: Any, bootstrap: str) -> None:
    """Every adapter and each task's latest table come back byte for byte; topics that hold something are left."""
    adapter = manifest(traffic, 1)
    table = promoted(traffic, adapter)
    publisher = KafkaPublisher(bootstrap, False, "test")
    seeded = seed_state_topics(traffic.store, publisher, bootstrap)
    assert seeded.keys() == {"ratchet.adapter", "ratchet.rollout"}
    tables = [record.value for record in read_all(bootstrap, "ratchet.rollout")]
    assert len(tables) == seeded["ratchet.rollout"]
    assert table.to_bytes() in tables
    assert adapter.to_bytes() in [record.value for record in read_all(bootstrap, "ratchet.adapter")]
    assert seed_state_topics(traffic.store, publisher, bootstrap) == {}
    publisher.close()


@pytest.fixture
def cli(traffic: Any, bootstrap: str, clickhouse: str, replicas: Any, tmp_path: Path, monkeypatch: Any) -> CliRunner:
    """The command line of a machine whose settings name these parts and the traffic's task."""
    config = tmp_path / "ratchet.toml"
    config.write_text(f"control_interval_s = 0.05\n[tasks.{traffic.task}]\n")
    settings = {
        "CONFIG": str(config),
        "KAFKA_BOOTSTRAP": bootstrap,
        "KAFKA_IDEMPOTENCE": "false",
        "CLICKHOUSE_DSN": clickhouse,
        "VLLM_URLS": ",".join(replica.url for replica in replicas),
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"RATCHET_{name}", value)
    return CliRunner()


@pytest.fixture
def controller(cli: CliRunner, traffic: Any) -> Iterator[Any]:
    """The controller as `ratchet control` runs it, on a thread of its own."""
    settings = wiring.settings()
    publisher = wiring.publisher(settings, "test-controller")
    running = wiring.controller(settings, traffic.store, publisher)
    stop, loop = asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(control(running, settings.kafka, stop)))
    thread.start()
    yield running
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
    publisher.close()


def test_people_start_look_pause_and_abort(traffic: Any, cli: CliRunner, bootstrap: str, controller: Any) -> None:
    """Each verb waits for the controller's answer and prints it; a refusal is one sentence; status and JSON agree."""
    older, newer = manifest(traffic, 1), manifest(traffic, 2)
    rejected = newer.model_copy(update={"status": "rejected", "reason": "completion 0.1"})
    publisher = KafkaPublisher(bootstrap, False, "test")
    publisher.publish(rejected)
    refused = cli.invoke(rollout.app, ["start", newer.name])
    assert isinstance(refused.exception, RolloutError)
    assert str(refused.exception) == f"{newer.name} is rejected: completion 0.1"
    publisher.publish(older)  # starts by itself
    publisher.close()
    held = cli.invoke(rollout.app, ["pause", traffic.task, "--why", "night"])
    while held.exception:  # the instruction may come before the start
        held = cli.invoke(rollout.app, ["pause", traffic.task, "--why", "night"])
    assert f"candidate {older.name}: 0% of users, 10% mirrored" in held.output
    traffic.write(controller.states[traffic.task])
    (shown,) = json.loads(cli.invoke(rollout.app, ["status", traffic.task, "--json"]).output)
    assert (shown["status"], shown["candidate"], shown["reason"]) == ("paused", older.name, "night")
    resumed = cli.invoke(rollout.app, ["resume", traffic.task])
    assert resumed.exit_code == 0
    traffic.write(controller.states[traffic.task])
    looked = cli.invoke(rollout.app, ["status", traffic.task])
    assert "now: wait: latency_p95: no data of the stable arm; error_rate: no data of the stable arm" in looked.output
    listed = {row["name"]: row for row in json.loads(cli.invoke(adapters.app, ["list", traffic.task, "--json"]).output)}
    assert {name: row["serves_as"] for name, row in listed.items()} == {older.name: "candidate", newer.name: None}
    assert f"path             {older.path}" in cli.invoke(adapters.app, ["show", older.name]).output
    ended = cli.invoke(rollout.app, ["abort", traffic.task, "--why", "enough"])
    assert f"{traffic.task}: aborted in stage 'shadow'" in ended.output
    assert controller.states[traffic.task].mirror_bp == 0


def said(cli: CliRunner, *arguments: str) -> str:
    """What a command that succeeds prints."""
    result = cli.invoke(rollout.app, [*arguments])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


def test_undo_retry_why_and_log(traffic: Any, cli: CliRunner, bootstrap: str, controller: Any) -> None:
    """Back to any earlier adapter, an aborted one again; and for any instant who decided, on what, and who followed."""
    task, first, second = traffic.task, manifest(traffic, 1), manifest(traffic, 2)
    table = promoted(traffic, first)
    gateway = Gateway(
        id=traffic.new_id(), at=traffic.start + timedelta(minutes=9), gateway="gw-1:8080", tables={task: 7},
        since={task: traffic.start},
    )  # fmt: skip
    traffic.write(gateway)
    publisher = KafkaPublisher(bootstrap, False, "test")
    publisher.publish(first)
    publisher.publish(table)
    wait_for(lambda: task in controller.states)
    refused = cli.invoke(rollout.app, ["retry", task])
    assert isinstance(refused.exception, RolloutError)
    assert str(refused.exception).startswith("nothing to retry: the last rollout")
    traffic.write(controller.states[task])
    assert "stable base, previous " + first.name in said(cli, "undo", task, "--to", "base", "--why", "too slow")
    traffic.write(controller.states[task])
    publisher.publish(second)  # starts by itself
    publisher.close()
    wait_for(lambda: controller.states[task].candidate == second.name)
    traffic.write(controller.states[task])
    said(cli, "abort", task)
    traffic.write(controller.states[task])
    assert f"candidate {second.name}: 0% of users, 10% mirrored" in said(cli, "retry", task, "--why", "a bad replica")
    traffic.write(controller.states[task])
    listed = json.loads(said(cli, "log", task, "--json"))
    assert [one["action"] for one in listed] == ["start", "abort", "start", "undo", "refuse", "promote", "promote"]
    assert listed[0]["reason"] == "a bad replica"
    assert "undo by " in said(cli, "log", task, "--limit", "4").splitlines()[3]
    then = json.loads(said(cli, "why", task, "--at", "2026-11-01T12:10:00Z", "--json"))
    assert then["shares"] == {first.name: 1.0}
    assert [one["action"] for one in then["became_stable"]][:1] == ["promote"]
    assert then["adapters"][first.name]["dataset"] == "d1"
    assert ("gw-1:8080", True) in [(one["gateway"], one["acknowledged"]) for one in then["gateways"]]
    today = said(cli, "why", task)
    assert "base gets 100% of users" in today
    assert "how base became stable, the latest first" in today
    assert "too slow" in today
    assert "no table was in force yet" in said(cli, "why", task, "--at", "2026-10-01")
    assert "still to come" in str(cli.invoke(rollout.app, ["why", task, "--at", "2036-10-01"]).exception)
    assert cli.invoke(rollout.app, ["why", task, "--at", "soon"]).exit_code == 2
    assert "allowed: base, or" in str(cli.invoke(rollout.app, ["undo", task, "--to", "v1"]).exception)


def test_people_steer_over_http(
    traffic: Any, cli: CliRunner, bootstrap: str, controller: Any, monkeypatch: Any
) -> None:
    """`ratchet api` as a process: the controller's table, its refusal as 409, and what the command line reads."""
    task, adapter, port = traffic.task, manifest(traffic, 1), free_port()
    publisher = KafkaPublisher(bootstrap, False, "test")
    publisher.publish(adapter)  # starts by itself
    publisher.close()
    monkeypatch.setenv("RATCHET_API_PORT", str(port))
    process = subprocess.Popen([sys.executable, "-m", "ratchet.services.cli.main", "api"])
    url = f"http://127.0.0.1:{port}/v1/rollouts/{task}"
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200)
        wait_for(lambda: task in controller.states)
        held = httpx.post(f"{url}/pause", json={"who": "ann", "why": "night"}, timeout=30)
        assert (held.status_code, held.json()["status"], held.json()["actor"]) == (200, "paused", "ann")
        again = httpx.post(f"{url}/pause", json={}, timeout=30)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "refused")
        traffic.write(controller.states[task])
        (shown,) = json.loads(said(cli, "status", task, "--json"))
        read = httpx.get(url, timeout=30).json()
        assert (read["version"], read["status"], read["queue"]) == (shown["version"], "paused", [])
        assert task in [one["task"] for one in httpx.get(url.removesuffix(f"/{task}"), timeout=30).json()]
        why = httpx.get(f"{url}/why", params={"at": now().isoformat()}, timeout=30).json()
        assert (why["table"]["action"], why["shares"]) == ("refuse", {"base": 1.0})
        assert httpx.get(f"{url}-not", timeout=30).status_code == 404
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_without_a_controller_the_command_says_so(traffic: Any, cli: CliRunner) -> None:
    """Nobody answers: the command ends after its wait and says what becomes of the instruction."""
    result = cli.invoke(rollout.app, ["abort", traffic.task, "--wait", "1"])
    assert str(result.exception) == (
        "no controller answered within 1 s; abort stays on the topic and is followed when one runs"
    )


def test_status_of_an_unknown_task(traffic: Any, cli: CliRunner) -> None:
    """A task that was never rolled out is said to go to the base model."""
    result = cli.invoke(rollout.app, ["status", traffic.task])
    assert "its requests go to the base model" in str(result.exception)
    assert isinstance(cli.invoke(adapters.app, ["show", f"{traffic.task}@v1-00000000"]).exception, RolloutError)

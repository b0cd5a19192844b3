"""All parts of the path from a user to ClickHouse, each a process that a test may kill, stop and start again."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from faults.load import CONVERSATION
from parts import NAMED_KAFKA, broker_argv, metric, wait_for

from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import BrokerProbe
from ratchet.infra.embedded.ports import LOOPBACK, port_taken
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics, lag
from ratchet.infra.kafka.tail import read_all

HERE = Path(__file__).parent
DRAIN_S = 120.0
LOOK_S = 0.1
CONFIG = """
home = "{home}"
base_model = "tiny"
kafka_bootstrap = "{bootstrap}"
kafka_idempotence = {idempotence}
clickhouse_dsn = "http://127.0.0.1:{clickhouse}/ratchet"
vllm_urls = {models}
gateway_port = {gateway}
flush_interval_s = 0.2
control_interval_s = 0.2
spool_max_mb = {spool_mb}
[tasks.support]
{task}
"""
STORED = """
SELECT toString(id) AS id, count() AS n, any(status) AS status FROM ratchet.inferences GROUP BY id
UNION ALL
SELECT toString(id) AS id, count() AS n, 'ok' AS status FROM ratchet.feedback GROUP BY id
"""

WRITTEN = "SELECT count() AS n FROM ratchet.inferences_log"


class Part:
    """One process, under a supervisor of its own, so that none outlives a killed test run."""

    def __init__(self, name: str, argv: Callable[[], list[str]], log: Path, ready: Callable[[], bool]) -> None:
        """Know how it is started: ``argv`` is asked each time, ``ready`` until it serves."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        env = own | {"RATCHET_CONFIG": str(log.parent / "ratchet.toml")}
        self._make = lambda: Child(name, argv(), log, ready, env=env, ready_timeout_s=120.0)
        self._supervisor: Supervisor | None = None

    def start(self) -> None:
        """Start it and return when it serves."""
        supervisor = Supervisor(grace_s=60.0)
        supervisor.start(self._make())
        self._supervisor = supervisor

    @property
    def process(self) -> Any:
        """Its `Popen`."""
        assert self._supervisor is not None
        return self._supervisor._running[0].process

    def kill(self) -> None:
        """SIGKILL, with everything it started."""
        assert self._supervisor is not None
        self._supervisor._running[0].kill_group()
        self.stop()

    def stop(self) -> int | None:
        """SIGTERM, and its exit status; nothing where it does not run."""
        if self._supervisor is None:
            return None
        process = self.process
        self._supervisor.stop()
        self._supervisor = None
        return int(process.returncode)

    def rss_mb(self) -> float:
        """Its resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


@dataclass
class Journal:
    """What the users were told so far."""

    path: Path
    ids: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in _ACCEPTED})
    counts: Counter[str] = field(default_factory=Counter)
    _read: int = 0

    def look(self) -> Counter[str]:
        """Read on; returns how often each thing happened (``refused chat`` by code, the rest by its word)."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            what, _, about = line.partition(" ")
            self.counts[what] += 1
            if what in self.ids:
                self.ids[what].append(about)
            elif about and what != "cut":
                self.counts[line] += 1
        return self.counts.copy()

    @property
    def accepted(self) -> set[str]:
        """Every id that somebody was told is accepted, or whose answer somebody read to its end."""
        self.look()
        return {id for ids in self.ids.values() for id in ids}


_ACCEPTED = ("inference", "feedback", "comment", "event")


class World:
    """Broker, ClickHouse, model server, gateway, ingest and users, on free ports in one folder."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        home: Path | None = None,
        spool_mb: int = 512,
        padding: int = 900,
        replicas: int = 1,
        task: str = "",
    ):
        """Write the settings; nothing runs yet.

        Args:
            folder: where everything lies.
            kind: ``embedded``, ``apache`` or ``named`` (what RATCHET_TEST_KAFKA says).
            home: the gateway's folder, where it is not in ``folder``.
            spool_mb: the most that the gateway keeps on disk.
            padding: bytes in each of the users' events.
            replicas: model servers, one or two.
            task: more of the task's settings, as TOML.
        """
        port = _ports(6)
        self.folder, self.kind = folder, kind
        self.bootstrap = NAMED_KAFKA if kind == "named" and NAMED_KAFKA else f"127.0.0.1:{port}"
        model, clickhouse, gateway, second = range(port + 2, port + 6)
        self.replicas = [f"http://127.0.0.1:{one}" for one in (model, second)[:replicas]]
        self.url = f"http://127.0.0.1:{gateway}"
        self.dsn = f"http://127.0.0.1:{clickhouse}/ratchet"
        idempotence = "false" if kind == "embedded" else "true"
        config = CONFIG.format(
            home=home or folder / "home", bootstrap=self.bootstrap, idempotence=idempotence, clickhouse=clickhouse,
            models=json.dumps(self.replicas), gateway=gateway, spool_mb=spool_mb, task=task,
        )  # fmt: skip
        (folder / "ratchet.toml").write_text(config)
        self.journal = Journal(folder / "journal")
        self.journal.path.touch()
        ratchet = [sys.executable, "-m", "ratchet.services.cli.main"]
        load = [sys.executable, str(HERE / "load.py"), self.url, str(self.journal.path), str(padding)]
        self.broker = self._part("broker", lambda: broker_argv(kind, port, folder), BrokerProbe(self.bootstrap))
        self.clickhouse = self._part(
            "clickhouse",
            lambda: clickhouse_server.command(clickhouse, folder / "clickhouse"),
            lambda: clickhouse_server.answers_ping(clickhouse),
        )
        self.model, self.second_model = (
            self._part(
                name,
                lambda at=at: [sys.executable, str(HERE / "model_server.py"), str(at)],
                lambda at=at: _answers(f"http://127.0.0.1:{at}/v1/models"),
            )
            for name, at in (("model", model), ("model-2", second))
        )
        self.gateway = self._part("gateway", lambda: [*ratchet, "gateway"], lambda: _answers(f"{self.url}/healthz"))
        self.ingest, self.second_ingest = (
            self._part(name, lambda: [*ratchet, "consume", "ingest"], lambda: True) for name in ("ingest", "ingest-2")
        )
        self.controller, self.standby = (
            self._part(name, lambda: [*ratchet, "control"], lambda: True) for name in ("control", "control-2")
        )
        self.users = self._part("users", lambda: load, lambda: True)

    def _part(self, name: str, argv: Callable[[], list[str]], ready: Callable[[], bool]) -> Part:
        return Part(name, argv, self.folder / f"{name}.log", ready)

    def start(self, *, broker: bool = True) -> None:
        """Start all but the users; without ``broker`` also all but the broker and ingest."""
        self.clickhouse.start()
        with connect(self.dsn) as store:
            migrate(store)
        self.model.start()
        if len(self.replicas) > 1:
            self.second_model.start()
        if broker:
            self.start_broker()
        self.gateway.start()

    def start_broker(self) -> None:
        """Start the broker with its topics, and ingest."""
        if self.kind != "named":
            self.broker.start()
        ensure_topics(self.bootstrap)
        self.ingest.start()

    def progress(self, more: int = 100, patience_s: float = 60.0) -> None:
        """Wait until users were told of ``more`` acceptances, and somebody of the end of a stream."""
        before = self.journal.look()

        def went_on() -> bool:
            new = self.journal.look() - before
            return sum(new[kind] for kind in _ACCEPTED) >= more and new["inference"] > 0

        wait_for(went_on, patience_s, LOOK_S)

    def settle(self) -> None:
        """End the users, then wait until everything that waits anywhere is stored."""
        assert self.users.stop() == 0, (self.folder / "users.log").read_text()
        self.drain()

    def drain(self) -> None:
        """Wait until the gateway and then ingest have nothing left."""
        wait_for(lambda: metric(self.url, "ratchet_spool_records") == 0, DRAIN_S, LOOK_S)
        assert metric(self.url, "ratchet_spool_lost") == 0
        wait_for(lambda: lag(self.bootstrap, "ingest") == 0, DRAIN_S, LOOK_S)

    def stored(self) -> dict[str, tuple[int, str]]:
        """What the documented views hold: id → how often, and its status."""
        with connect(self.dsn) as store:
            return {row["id"]: (row["n"], row["status"]) for row in store.query_sql(STORED)}

    def on_topic(self, topic: str) -> list[dict[str, Any]]:
        """Every event on a topic, as often as it is there."""
        return [json.loads(record.value) for record in read_all(self.bootstrap, f"ratchet.{topic}") if record.value]

    def in_order(self) -> bool:
        """Whether the diary's comments lie on their topic as they were written; a repeat counts where it came first."""
        diary = [int(e["value"]) for e in self.on_topic("feedback") if e.get("conversation_id") == CONVERSATION]
        numbers = list(dict.fromkeys(diary))
        return bool(numbers) and numbers == sorted(numbers)

    def await_rows(self, more: int, patience_s: float = 120.0) -> None:
        """Wait until ingest has written ``more`` rows than now, repeated ones among them."""
        with connect(self.dsn) as store:
            count = lambda: int(store.query_sql(WRITTEN)[0]["n"])  # noqa: E731
            before = count()
            wait_for(lambda: count() >= before + more, patience_s, LOOK_S)

    def figures(self, **more: object) -> dict[str, Any]:
        """Compare what was accepted with what is stored."""
        accepted, stored, told = self.journal.accepted, self.stored(), self.journal.look()
        if late := len(accepted - stored.keys()):
            time.sleep(5.0)
            stored = self.stored()
        other = [id for id in self.journal.ids["inference"] if id in stored and stored[id][1] != "ok"]
        lost = accepted - stored.keys()
        if lost:  # before or behind Kafka?
            topics = {event["id"] for topic in ("inference", "feedback") for event in self.on_topic(topic)}
            more |= {"lost_behind_kafka": len(lost & topics), "lost_ids": sorted(lost)[:20]}
        return {
            "broker": self.kind,
            "accepted": len(accepted),
            "stored": len(accepted & stored.keys()),
            "lost": len(lost),
            "late": late,
            "duplicates": sum(n - 1 for n, _ in stored.values()),
            "stored_unasked": len(stored.keys() - accepted),
            "wrong_status": len(other),
            "cut": told["cut"],
            "failed": told["failed"],
        } | more

    def stop(self) -> None:
        """End whatever runs."""
        parts = (
            *(self.users, self.controller, self.standby, self.gateway, self.ingest, self.second_ingest),
            *(self.model, self.second_model, self.clickhouse, self.broker),
        )
        for part in parts:
            if part._supervisor is not None:
                part.kill()


@contextmanager
def world(folder: Path, kind: str, **arguments: Any) -> Iterator[World]:
    """A world, ended with the block."""
    made = World(folder, kind, **arguments)
    try:
        yield made
    finally:
        made.stop()


def _ports(count: int) -> int:
    """The first of ``count`` free ports, none that a connection may be given while the part that has it is away."""
    while True:
        first = random.randrange(20_000, 32_000)
        if not any(port_taken(LOOPBACK, first + offset) for offset in range(count)):
            return first


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, verify=False).is_success
    except httpx.TransportError:
        return False


def seconds_since(begun: float) -> float:
    """Rounded seconds on the monotonic clock."""
    return round(time.monotonic() - begun, 1)

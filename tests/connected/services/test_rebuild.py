"""`ratchet rebuild` on real brokers and the embedded ClickHouse: the same rows again, and never fewer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from parts import BROKERS, NAMED_KAFKA, Broker, running_broker, wait_for
from typer.testing import CliRunner, Result

from ratchet.consumers.ingest import Ingest
from ratchet.consumers.pairs import derive_all
from ratchet.consumers.refill import Refill
from ratchet.consumers.rules.flood import FloodPolicy
from ratchet.infra.clickhouse import twin
from ratchet.infra.clickhouse.client import Store, beside, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics, ranges
from ratchet.infra.kafka.dead import read_dead_letters
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.schemas.decoding import EVENTS, parse
from ratchet.schemas.events import Event
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.publish import HERE
from ratchet.schemas.topics import FEEDBACK, INFERENCE, SCORE
from ratchet.services import wiring
from ratchet.services.cli.main import app
from ratchet.services.doctor import examine
from ratchet.services.learning import NO_CAP
from ratchet.services.rebuild import MARKER, TWIN
from ratchet.trainers.building import build

GOLDEN = HERE.parent / "golden"
# the broker holds other tests' deliberate rubbish too
TOLERANT = FloodPolicy(share=0.99, minimum=100_000)
# as for every task that the settings do not declare
UNCAPPED = PairingPolicy(max_pairs_per_user=NO_CAP)


@pytest.fixture(scope="module", params=BROKERS)
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Brokers of this file's own: what is compared with the tables is everything that they hold."""
    if NAMED_KAFKA is not None:
        yield Broker(NAMED_KAFKA, embedded=False)
        return
    with running_broker(request.param, tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="module")
def own_clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A ClickHouse that holds nothing but what came from the topics."""
    folder, port = tmp_path_factory.mktemp("clickhouse"), free_port()
    command = clickhouse_server.command(port, folder / "data")
    with Supervisor(grace_s=1) as supervisor:
        supervisor.start(
            Child("clickhouse", command, folder / "server.log", lambda: clickhouse_server.answers_ping(port))
        )
        yield f"http://127.0.0.1:{port}/ratchet"


@pytest.fixture
def store(own_clickhouse: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """That ClickHouse with empty tables, as the settings of the commands name it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", own_clickhouse)
    with connect(own_clickhouse) as made:
        for database in ("ratchet", TWIN):
            made.command(f"DROP DATABASE IF EXISTS {database} SYNC", use_database=False)
        migrate(made)
        yield made


@pytest.fixture
def publisher(kafka: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaPublisher]:
    """A producer on the broker that the settings of the commands name."""
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", kafka.bootstrap)
    ensure_topics(kafka.bootstrap)
    made = KafkaPublisher(kafka.bootstrap, idempotence=not kafka.embedded, client_id="test")
    yield made
    made.close()


def golden(name: str, **changes: Any) -> Event:
    """A golden message under an id and a time of its own."""
    value = orjson.loads((GOLDEN / f"{name}.json").read_bytes())
    return parse(EVENTS[name], orjson.dumps(value | {"id": new_id(), "at": now()} | changes))


def mix(task: str, n: int = 20) -> list[Event]:
    """Events of every kind that ClickHouse keeps, feedback that makes a pair among them."""
    events: list[Event] = []
    for number in range(n):
        asked = {"messages": [{"role": "user", "content": f"Question {number}"}], "params": {}}
        answer = golden("inference.v1", task=task, conversation_id=f"{task}-{number}", request=asked)
        correction = {"kind": "correction", "value": f"Better answer {number}.", "compared_with": None}
        vote = golden("feedback.v1", task=task, inference_id=answer.id, user=f"u{number}", **correction)
        events += [answer, vote, golden("shadow.v1", task=task), golden("score.v1", task=task, target_id=answer.id)]
        events += [golden("rollout.v1", task=task, version=number + 1), golden("training.v1", task=task)]
    events += [golden("adapter.v1", task=task), golden("alert.v1", task=task), golden("operator.v1", task=task)]
    return [*events, golden("gateway.v1", gateway=task)]


def contents(store: Store) -> dict[str, tuple[int, int]]:
    """Every documented view's count and a hash of its rows in any order, less when they were stored."""
    found = {}
    for table in (table for table in twin.tables(store) if table.of_events):
        columns = ", ".join(f"`{name}`" for name in table.columns if name != "ingested_at")
        sql = f"SELECT count() AS rows_, groupBitXor(cityHash64({columns})) AS hash_ FROM ratchet.{table.view}"
        [row] = store.query_sql(sql)
        found[table.view] = (row["rows_"], row["hash_"])
    assert len(found) >= 10
    return found


def fill(bootstrap: str, store: Store) -> None:
    """Store what the topics hold, and the pairs that follow, as the consumers do in time."""
    Refill(bootstrap, store).read_on()
    for row in store.query("pair_tasks"):
        derive_all(store, row["task"], UNCAPPED)


def rebuild(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["rebuild", *arguments])


def stored(store: Store, task: str, view: str = "inferences") -> int:
    """How many events of the task a view has."""
    sql = f"SELECT count() AS n FROM ratchet.{view} WHERE task = {{task:String}}"
    return int(store.query_sql(sql, {"task": task})[0]["n"])


def sum_of_hours(store: Store, task: str) -> int:
    """How many inferences of the task the hourly rollup counts."""
    sql = "SELECT sum(n) AS n FROM ratchet.hourly WHERE task = {task:String}"
    return int(store.query_sql(sql, {"task": task})[0]["n"])


def test_it_ends_with_the_same_rows_while_ingest_and_traffic_go_on(
    kafka: Any, store: Store, publisher: KafkaPublisher, tmp_path: Path
) -> None:
    """Redelivered, bad and derived ones among them; what comes while it runs is there afterwards, once."""
    task = f"mix-{new_id()}"
    for event in (events := mix(task)):
        publisher.publish(event)
    for event in events[:50]:
        publisher.publish(event)
    for number in range(3):
        publisher.send(SCORE.name, task.encode(), b"rubbish %d" % number)
    assert publisher.flush(10) == 0
    ingest = Ingest(kafka.bootstrap, store, publisher, 0.1, group=new_id(), flood=TOLERANT, session_timeout_s=6)
    stop = threading.Event()
    running = threading.Thread(target=ingest.run, args=(stop,))
    running.start()
    try:
        wait_for(
            lambda: stored(store, task, "rollouts") == stored(store, task) == 20 and stored(store, task, "alerts") == 1
        )
        assert derive_all(store, task, UNCAPPED).built == 20
        version = build(store, tmp_path / ".ratchet", task, now()).version
        time.sleep(0.5)
        before, letters = contents(store), len(read_dead_letters(kafka.bootstrap))

        report = json.loads(rebuild("--json").stdout)
        assert contents(store) == before
        assert {view["view"]: view["after"] for view in report["views"]} == {name: n for name, (n, _) in before.items()}
        assert all(view["older"] == 0 for view in report["views"])
        assert sum_of_hours(store, task) == 20
        assert report["bad"] >= 3
        assert len(read_dead_letters(kafka.bootstrap)) == letters
        assert store.query_sql("SELECT version FROM ratchet.datasets")[0]["version"] == version

        sent: list[Event] = []
        traffic = threading.Thread(target=_publish_until, args=(stopped := threading.Event(), publisher, task, sent))
        traffic.start()
        assert rebuild().exit_code == 0
        stopped.set()
        traffic.join()
        assert publisher.flush(10) == 0
        assert sent
        wait_for(lambda: stored(store, task) == 20 + len(sent))
        assert sum_of_hours(store, task) == 20 + len(sent)
    finally:
        stop.set()
        running.join()
    assert not twin.exists(store, TWIN, "migrations")


def _publish_until(stop: threading.Event, publisher: KafkaPublisher, task: str, sent: list[Event]) -> None:
    while not stop.wait(0.005):
        sent.append(golden("inference.v1", task=task))
        publisher.publish(sent[-1])


def test_what_the_topics_no_longer_hold_is_never_lost(kafka: Any, store: Store, publisher: KafkaPublisher) -> None:
    """With a topic's head gone it refuses, naming topic, offset and rows; --keep-older carries them over."""
    if kafka.embedded:
        pytest.skip("the embedded broker does not know DeleteRecords; it forgets everything, see below")
    task = f"older-{new_id()}"
    for event in mix(task):
        publisher.publish(event)
    assert publisher.flush(10) == 0
    fill(kafka.bootstrap, store)
    before = contents(store)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    ends = ranges(kafka.bootstrap, [INFERENCE.name])
    for future in admin.delete_records([TopicPartition(*part, held.stop) for part, held in ends.items()]).values():
        future.result(10)
    refused = rebuild()
    assert refused.exit_code == 1
    first = next(held.stop for held in ends.values() if held)
    assert f"{before['inferences'][0]} of {before['inferences'][0]} in inferences" in str(refused.exception)
    assert f"{INFERENCE.name} is empty" in str(refused.exception)
    assert contents(store) == before
    publisher.publish(golden("inference.v1", task=task))
    assert publisher.flush(10) == 0
    assert f"{INFERENCE.name} begins at offset" in str((again := rebuild()).exception)
    assert str(first) in str(again.exception)
    kept = json.loads(rebuild("--keep-older", "--json").stdout)
    [inferences] = [view for view in kept["views"] if view["view"] == "inferences"]
    assert (inferences["older"], inferences["after"]) == (before["inferences"][0], before["inferences"][0] + 1)
    assert {**contents(store), "inferences": 0} == {**before, "inferences": 0}


@pytest.mark.connected
def test_a_broker_that_forgot_everything_is_no_reason_to_forget(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded broker is empty after a restart: the tables stay, whether it refuses or keeps them."""
    port = free_port()
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", bootstrap := f"127.0.0.1:{port}")
    broker = Child("kafka", broker_command(port), tmp_path / "broker.log", BrokerProbe(bootstrap))
    with Supervisor(grace_s=0.1) as supervisor:
        supervisor.start(broker)
        ensure_topics(bootstrap)
        made = KafkaPublisher(bootstrap, False, "test")
        for event in mix("forgotten"):
            made.publish(event)
        assert made.flush(10) == 0
        made.close()
        fill(bootstrap, store)
    before = contents(store)
    with Supervisor(grace_s=0.1) as supervisor:
        supervisor.start(broker)
        ensure_topics(bootstrap)
        assert "ratchet.inference is empty" in str(rebuild().exception)
        assert contents(store) == before
        assert rebuild("--keep-older").exit_code == 0
        assert contents(store) == before


def test_killed_it_leaves_the_tables_alone_and_starts_clean(
    kafka: Any, store: Store, publisher: KafkaPublisher
) -> None:
    """SIGKILL in the middle changes nothing; half exchanged, the next run keeps what the old tables alone have."""
    if not kafka.embedded:
        pytest.skip("once is enough: what it shows is ClickHouse's part")
    task = f"killed-{new_id()}"
    for number in range(500):
        publisher.publish(golden("inference.v1", task=task, conversation_id=f"{number}"))
    assert publisher.flush(20) == 0
    fill(kafka.bootstrap, store)
    before = contents(store)
    child = subprocess.Popen([sys.executable, "-m", "ratchet.services.cli.main", "rebuild"])
    wait_for(lambda: twin.exists(store, TWIN, "alerts_log"))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert contents(store) == before

    # killed between two exchanges: the new table is empty, the old one has its rows
    with connect(beside(os.environ["RATCHET_CLICKHOUSE_DSN"], TWIN)) as other:
        migrate(other)
        other.command(f"CREATE VIEW IF NOT EXISTS {MARKER} AS SELECT 1")
        other.command("TRUNCATE TABLE inferences_log")
    twin.trade(store, ["inferences_log"], "ratchet", TWIN)
    assert stored(store, task) == 0
    [clickhouse] = [one for one in examine(wiring.settings()) if one["part"] == "clickhouse"]
    assert "run `ratchet rebuild`, which first brings back" in clickhouse["says"]
    assert rebuild().exit_code == 0
    assert contents(store) == before


def test_a_partition_is_read_again_from_an_offset_or_a_time(
    kafka: Any, store: Store, publisher: KafkaPublisher
) -> None:
    """A rewind brings back what is missing from there on, and counts nothing twice; a wrong position is named."""
    if not kafka.embedded:
        pytest.skip("once is enough: both brokers find offsets by time")
    task, start = f"rewind-{new_id()}", now()
    before = ranges(kafka.bootstrap, [FEEDBACK.name])
    for _ in range(9):  # one key, hence one partition
        publisher.publish(golden("feedback.v1", task=task, inference_id="019a3f2c-0001-7000-8000-000000000001"))
    assert publisher.flush(10) == 0
    [((_, number), held)] = ranges(kafka.bootstrap, [FEEDBACK.name]).items() - before.items()
    assert rebuild("--from", f"{FEEDBACK.name}@{(start - timedelta(milliseconds=20)).isoformat()}").exit_code == 0
    assert stored(store, task, "feedback") == 9
    store.command("TRUNCATE TABLE ratchet.feedback_log")
    done = json.loads(rebuild("--from", f"{FEEDBACK.name}:{number}:{held.stop - 1}", "--json").stdout)
    assert done["records"] == stored(store, task, "feedback") == 1
    for _ in range(2):
        assert rebuild("--from", f"{FEEDBACK.name}:{number}").exit_code == 0
        assert stored(store, task, "feedback") == 9
    assert rebuild("--from", FEEDBACK.name, "--keep-older").exit_code == 2
    refused = rebuild("--from", f"{FEEDBACK.name}:{number}:99999999")
    assert f"partition {number} holds the offsets {held.start} to {held.stop - 1}" in str(refused.exception)

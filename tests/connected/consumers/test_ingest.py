"""Ingest against real brokers and the embedded ClickHouse: killed, starved, fed rubbish; nothing is lost."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from parts import wait_for

from ratchet.consumers.ingest import Ingest
from ratchet.consumers.rules.batch import BatchLimits
from ratchet.consumers.rules.flood import FloodPolicy
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics, lag
from ratchet.infra.kafka.dead import original, read_dead_letters
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import FloodError
from ratchet.schemas.events import Inference, Request, Response
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rollout_events import Operator
from ratchet.schemas.topics import ALERT, FEEDBACK, INFERENCE, ROLLOUT

# the shared broker holds other tests' deliberate rubbish too
TOLERANT = FloodPolicy(share=0.99, minimum=100_000)
COUNT = "SELECT count() AS n, uniqExact(id) AS ids FROM ratchet.inferences WHERE task = {task:String}"

CHILD = """
import signal, sys, threading
from ratchet.consumers.ingest import Ingest
from ratchet.consumers.rules.batch import BatchLimits
from ratchet.consumers.rules.flood import FloodPolicy
from ratchet.infra.clickhouse.client import connect
from ratchet.infra.kafka.publisher import KafkaPublisher
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
publisher = KafkaPublisher(sys.argv[1], False, "child")
Ingest(sys.argv[1], connect(sys.argv[2]), publisher, limits=BatchLimits(0.1, rows=100), session_timeout_s=6,
       flood=FloodPolicy(share=0.99, minimum=100_000)).run(stop)
publisher.close()
"""


def inference(task: str, text: str = "hello") -> Inference:
    """A production request of ``task``."""
    return Inference(
        id=new_id(),
        at=now(),
        task=task,
        adapter="base",
        base_model="smollm2-135m-instruct",
        request=Request(messages=[{"role": "user", "content": text}]),
        response=Response(content=text * 20, finish_reason="stop"),
        status="ok",
        latency_ms=12.5,
        source="gateway",
        stage="stable",
    )


@pytest.fixture
def publisher(kafka: Any) -> Iterator[KafkaPublisher]:
    """A producer on a broker that has the loop's topics."""
    ensure_topics(kafka.bootstrap)
    made = KafkaPublisher(kafka.bootstrap, idempotence=not kafka.embedded, client_id="test")
    yield made
    made.close()


@pytest.fixture
def store(clickhouse: str) -> Iterator[Store]:
    """The embedded ClickHouse, with its tables."""
    with connect(clickhouse) as made:
        migrate(made)
        yield made


@contextmanager
def running(ingest: Ingest) -> Iterator[threading.Thread]:
    """Ingest in a thread, stopped and joined at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=ingest.run, args=(stop,), name="ingest")
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(timeout=30)
    assert not thread.is_alive()


def stored(store: Store, task: str) -> tuple[int, int]:
    """Rows of the task in the documented view, and distinct ids among them."""
    [row] = store.query_sql(COUNT, {"task": task})
    return row["n"], row["ids"]


@pytest.mark.slow
def test_killed_in_mid_stream_it_stores_every_event_once(
    kafka: Any, clickhouse: str, store: Store, publisher: KafkaPublisher
) -> None:
    """After SIGKILL between inserts and commits, the next process leaves each event once in the view, none missing."""
    task, n = f"kill-{new_id()}", 6_000
    for number in range(n):
        publisher.publish(inference(task, f"{number}"))
    assert publisher.flush(30) == 0
    command = [sys.executable, "-c", CHILD, kafka.bootstrap, clickhouse]
    first = subprocess.Popen(command)
    try:
        wait_for(lambda: stored(store, task)[0] > 0)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    at_kill = stored(store, task)[0]
    assert 0 < at_kill < n, "the kill was meant to fall in mid-stream"
    second = subprocess.Popen(command)
    try:
        wait_for(lambda: stored(store, task)[1] == n)
        assert stored(store, task) == (n, n)
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=30) == 0
    assert stored(store, task) == (n, n)


def test_bad_records_become_dead_letters_and_good_ones_rows(
    kafka: Any, store: Store, publisher: KafkaPublisher
) -> None:
    """Undecodable bytes are kept with place, key and reason; tombstones and operator events are passed over."""
    task, key = f"bad-{new_id()}", new_id()
    publisher.publish(inference(task))
    publisher.send(INFERENCE.name, key.encode(), b"\xff\x00 rubbish")
    publisher.send(INFERENCE.name, key.encode(), inference(task).to_bytes().replace(b'"ok"', b'"fine"'))
    huge = inference(task).model_copy(update={"prompt_tokens": 2**32})
    publisher.publish(huge)
    publisher.publish(Operator(id=new_id(), at=now(), task=task, verb="pause", who="test"))
    publisher._producer.produce(ROLLOUT.name, key=f"{task}/gone".encode(), value=None)
    publisher.publish(inference(task))
    assert publisher.flush(10) == 0

    ingest = Ingest(kafka.bootstrap, store, publisher, 0.1, flood=TOLERANT)
    with running(ingest):
        wait_for(lambda: stored(store, task) == (2, 2) and ingest.dead_letters >= 3)
    letters = [letter for letter in read_dead_letters(kafka.bootstrap) if letter.key in (key, huge.id)]
    by_reason = {letter.reason: original(letter) for letter in letters}
    assert len(letters) == 3
    assert any("not JSON" in reason and raw == b"\xff\x00 rubbish" for reason, raw in by_reason.items())
    assert any("status" in reason and "'fine'" in reason for reason in by_reason)
    assert any("prompt_tokens" in reason and raw == huge.to_bytes() for reason, raw in by_reason.items())
    assert all(letter.topic == INFERENCE.name and letter.offset >= 0 for letter in letters)


def test_clickhouse_away_loses_nothing(
    kafka: Any, publisher: KafkaPublisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ClickHouse killed for a while rows wait, it is said once that they do and once that they go on."""
    task, n, port = f"away-{new_id()}", 3_000, free_port()
    command = clickhouse_server.command(port, tmp_path / "data")
    child = Child("clickhouse", command, tmp_path / "server.log", lambda: clickhouse_server.answers_ping(port))
    with Supervisor(grace_s=1) as first:
        first.start(child)
        store = connect(f"http://127.0.0.1:{port}/ratchet")
        migrate(store)
        # small batches, so that the queue behind the stuck one fills and partitions are paused
        ingest = Ingest(kafka.bootstrap, store, publisher, limits=BatchLimits(0.1, rows=500), flood=TOLERANT)
        with caplog.at_level(logging.WARNING, "ratchet.ingest"), running(ingest):
            publisher.publish(inference(task, "first"))
            publisher.flush(10)
            wait_for(lambda: stored(store, task)[0] == 1)
            for running_child in first._running:
                running_child.kill_group()
            for number in range(n - 1):
                publisher.publish(inference(task, f"{number}"))
            assert publisher.flush(30) == 0
            wait_for(lambda: ingest.stalled)
            time.sleep(1.5)  # long enough for polling to go on with paused partitions
            with Supervisor(grace_s=1) as second:
                second.start(child)
                wait_for(lambda: stored(store, task)[1] == n)
                assert stored(store, task) == (n, n)
        said = [record.getMessage() for record in caplog.records if record.name == "ratchet.ingest"]
    assert sum("rows wait" in text for text in said) == 1
    assert sum("takes rows again" in text for text in said) == 1


def test_a_flood_of_bad_messages_stops_it(
    kafka: Any, clickhouse: str, store: Store, publisher: KafkaPublisher, tmp_path: Path
) -> None:
    """Past the share it ends with a sentence and one alert, having dead-lettered none of the flood; then it goes on."""
    task, key = f"flood-{new_id()}", new_id()
    started = now()
    publisher.publish(inference(task))
    for number in range(700):
        publisher.send(FEEDBACK.name, key.encode(), b"rubbish %d" % number)
    assert publisher.flush(10) == 0
    policy = FloodPolicy(share=0.5, minimum=300)
    strict = Ingest(kafka.bootstrap, store, publisher, 0.1, flood=policy, session_timeout_s=6)
    with pytest.raises(FloodError, match=r"ingest stops: \d+ of \d+ messages .* not JSON.*RATCHET_FLOOD_MINIMUM"):
        strict.run(threading.Event())
    before = sum(letter.key == key for letter in read_dead_letters(kafka.bootstrap))
    assert before < 300
    # a restart, as a process, meets the same flood
    settings = {"KAFKA_BOOTSTRAP": kafka.bootstrap, "CLICKHOUSE_DSN": clickhouse, "FLOOD_MINIMUM": "300"}
    again = subprocess.run(
        [sys.executable, "-m", "ratchet.services.cli.main", "consume", "ingest"],
        env=os.environ
        | {f"RATCHET_{name}": value for name, value in settings.items()}
        | {"RATCHET_KAFKA_IDEMPOTENCE": str(not kafka.embedded)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert again.returncode == FloodError.status == 3
    assert "ratchet: ingest stops" in again.stderr
    before = sum(letter.key == key for letter in read_dead_letters(kafka.bootstrap))
    assert before < 600
    said = [parse(Alert, record.value) for record in read_all(kafka.bootstrap, ALERT.name) if record.value]
    assert len({alert.id for alert in said if alert.at >= started}) == 1
    assert sum(alert.at >= started for alert in said) == 2
    [shown] = [row for row in store.query("alerts", task="", state="open", most=100) if row["id"] == said[-1].id]
    assert FEEDBACK.name in shown["title"]
    assert "not JSON" in shown["summary"]
    patient = Ingest(kafka.bootstrap, store, publisher, 0.1, flood=TOLERANT)
    with running(patient):
        wait_for(lambda: patient.dead_letters >= 700 - before and stored(store, task) == (1, 1))
        wait_for(
            lambda: said[-1].id in {one["id"] for one in store.query("alerts", task="", state="resolved", most=99)}
        )
    assert sum(letter.key == key for letter in read_dead_letters(kafka.bootstrap)) == 700


@pytest.mark.slow
@pytest.mark.connected
def test_a_broker_that_forgot_everything_is_read_from_its_beginning(store: Store, tmp_path: Path) -> None:
    """The embedded broker restarts empty: old offsets are not committed to it, and its new records all arrive."""
    task, port = f"forgot-{new_id()}", free_port()
    bootstrap = f"127.0.0.1:{port}"
    broker = Child("kafka", broker_command(port), tmp_path / "broker.log", BrokerProbe(bootstrap))
    stopped = threading.Event()
    with Supervisor(grace_s=0.1) as first:
        first.start(broker)
        ensure_topics(bootstrap)
        publisher = KafkaPublisher(bootstrap, False, "test")
        ingest = Ingest(bootstrap, store, publisher, 0.1)
        thread = threading.Thread(target=ingest.run, args=(stopped,), name="ingest")
        thread.start()
        for number in range(60):
            publisher.publish(inference(task, f"{number}"))
        assert publisher.flush(10) == 0
        wait_for(lambda: stored(store, task) == (60, 60))
    try:
        with Supervisor(grace_s=0.1) as second:
            second.start(broker)
            ensure_topics(bootstrap)
            for number in range(20):
                publisher.publish(inference(task, f"after {number}"))
            wait_for(lambda: publisher.flush(1) == 0)
            wait_for(lambda: stored(store, task) == (80, 80))
            stopped.set()
            thread.join(timeout=30)
            assert lag(bootstrap, "ingest") == 0
    finally:
        stopped.set()
        thread.join(timeout=30)
        publisher.close()
    assert not thread.is_alive()

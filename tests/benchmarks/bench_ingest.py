"""`make bench-ingest`: Ratchet's ingest beside the bare loop, on one broker, one ClickHouse, the same events and table.

The bare loop consumes with librdkafka and inserts the records as they are: no validation, no
deduplication keys, no dead letters. Rounds alternate; each is a process of its own, in a group of
its own, into an emptied table. The clock runs from the first record to the last commit. Freshness
is measured apart: events are produced at a steady rate, and a reader asks ClickHouse for each.
The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from ratchet.consumers.ingest import Ingest
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.config import consumer, group_id
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.schemas.events import Inference, Request, Response
from ratchet.schemas.topics import INFERENCE, route

TABLE = "inferences_log"
COUNT = "SELECT count() AS n, uniqExact(id) AS ids FROM ratchet.inferences WHERE task = {task:String}"
TEXT = "The gearbox of my mower makes a noise and the parcel for order 4711 has not come. "
BATCH = 20_000


def event(task: str, number: int) -> Inference:
    """One inference of about 1.2 KB, no two alike."""
    words = f"{TEXT * 7}{number}"
    return Inference(
        id=new_id(),
        at=now(),
        task=task,
        conversation_id=f"conversation-{number}",
        user=uuid.uuid4().hex,
        adapter="support@v1-1a2b3c4d",
        stage="stable",
        base_model="smollm2-135m-instruct",
        request=Request(messages=[{"role": "user", "content": words}], params={"temperature": 0, "max_tokens": 48}),
        response=Response(content=TEXT * 2, finish_reason="stop"),
        status="ok",
        latency_ms=120.5,
        ttft_ms=20.25,
        prompt_tokens=130,
        completion_tokens=27,
        source="gateway",
        tags={"app": "shop"},
    )


def produce(bootstrap: str, task: str, count: int) -> int:
    """Fill the topic; returns the mean size in bytes."""
    publisher = KafkaPublisher(bootstrap, idempotence=False, client_id="bench", queue_records=1_000_000)
    topic, size = route(event(task, 0))[0].name, 0
    for number in range(count):
        one = event(task, number)
        raw = one.to_bytes()
        size += len(raw)
        publisher.send(topic, one.id.encode(), raw)
        if number % 20_000 == 0:
            publisher.flush(60)
    left = publisher.flush(60)
    publisher.close()
    assert left == 0, f"{left} events were not produced"
    return size // count


def bare(bootstrap: str, dsn: str, group: str, count: int) -> float:
    """The bare loop; seconds from the first record to the last commit."""
    store = connect(dsn)
    reader = Consumer(consumer(bootstrap, group_id(group), "bench-bare"))
    reader.subscribe([INFERENCE.name])
    threads, writing = ThreadPoolExecutor(1), None
    begun, taken = 0.0, 0
    lines: list[bytes] = []
    offsets: dict[tuple[str, int], int] = {}

    def write(batch: list[bytes], upto: dict[tuple[str, int], int]) -> list[TopicPartition]:
        store.insert_json(TABLE, b"\n".join(batch), skip_unknown=True)
        return [TopicPartition(topic, part, offset) for (topic, part), offset in upto.items()]

    while taken < count or lines:
        for message in reader.consume(2_000, 0.05):
            if message.error() is None:
                begun = begun or time.monotonic()
                lines.append(message.value() or b"")
                offsets[str(message.topic()), int(message.partition() or 0)] = int(message.offset() or 0) + 1
        if len(lines) >= BATCH or taken + len(lines) >= count:
            if writing is not None:
                reader.commit(offsets=writing.result(), asynchronous=True)
            writing = threads.submit(write, lines, offsets)
            taken += len(lines)
            lines, offsets = [], {}
    assert writing is not None
    reader.commit(offsets=writing.result(), asynchronous=False)
    seconds = time.monotonic() - begun
    reader.close()
    store.close()
    return seconds


class Timed(Ingest):
    """Ingest that notes when its first record came."""

    begun = 0.0

    def _take(self, messages: list[Message]) -> None:
        if messages and not self.begun:
            self.begun = time.monotonic()
        super()._take(messages)


def ratchet(bootstrap: str, dsn: str, group: str, count: int) -> float:
    """Ratchet's ingest; seconds from the first record to the last commit."""
    store, publisher = connect(dsn), KafkaPublisher(bootstrap, idempotence=False, client_id="bench-ingest")
    ingest, stop = Timed(bootstrap, store, publisher, group=group), threading.Event()
    thread = threading.Thread(target=ingest.run, args=(stop,))
    thread.start()
    while ingest.rows < count and thread.is_alive():
        time.sleep(0.002)
    stop.set()
    thread.join()
    seconds = time.monotonic() - ingest.begun
    publisher.close()
    store.close()
    return seconds


def child(kind: str, bootstrap: str, dsn: str, group: str, count: int) -> dict[str, Any]:
    """Run one round in a process of its own."""
    argv = [sys.executable, __file__, "--child", kind, bootstrap, dsn, group, str(count)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind} failed: {done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def freshness(bootstrap: str, dsn: str, store: Store, rate: int, seconds: float, flush_s: float) -> float:
    """P99 in seconds from an event's hand-over to Kafka to its row being readable, at ``rate`` events/s."""
    group, task = f"bench-{uuid.uuid4().hex[:8]}", f"fresh-{uuid.uuid4().hex[:8]}"
    argv = [sys.executable, __file__, "--child", "steady", bootstrap, dsn, group, str(flush_s)]
    with subprocess.Popen(argv) as process:
        publisher = KafkaPublisher(bootstrap, idempotence=False, client_id="bench-fresh")
        sent: dict[int, float] = {}
        waits: list[float] = []
        seen, begun, number = 0, 0.0, 0
        ask = "SELECT count() AS n FROM ratchet.inferences_log WHERE task = {task:String}"
        publisher.publish(event(task, -1))
        while not int(store.query_sql(ask, {"task": task})[0]["n"]):
            time.sleep(0.05)
        begun = time.monotonic()
        while seen < number or number < rate * seconds:
            due = min(int((time.monotonic() - begun) * rate), int(rate * seconds))
            while number < due:
                sent[number] = time.monotonic()
                publisher.publish(event(task, number))
                number += 1
            # one key a conversation spreads over partitions, so rows are counted, oldest first
            stored = int(store.query_sql(ask, {"task": task})[0]["n"]) - 1
            at = time.monotonic()
            waits += [at - sent[index] for index in range(seen, stored)]
            seen = stored
            time.sleep(0.005)
        process.terminate()
        publisher.close()
    return statistics.quantiles(waits, n=100)[98]


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return run_child(*given.child)
    folder = Path(tempfile.mkdtemp(prefix="bench-ingest-"))
    kafka_port, clickhouse_port = free_port(), free_port()
    bootstrap, dsn = f"127.0.0.1:{kafka_port}", f"http://127.0.0.1:{clickhouse_port}/ratchet"
    with Supervisor() as supervisor:
        supervisor.start(Child("broker", broker_command(kafka_port), folder / "broker.log", BrokerProbe(bootstrap)))
        command = clickhouse_server.command(clickhouse_port, folder / "data")
        ready = lambda: clickhouse_server.answers_ping(clickhouse_port)  # noqa: E731
        supervisor.start(Child("clickhouse", command, folder / "clickhouse.log", ready))
        ensure_topics(bootstrap)
        store = connect(dsn)
        migrate(store)
        task = f"bench-{uuid.uuid4().hex[:8]}"
        size = produce(bootstrap, task, given.events)
        print(f"{given.events} events of {size} bytes, {given.rounds} rounds of each, in turn")
        runs: dict[str, list[float]] = {"bare": [], "ratchet": []}
        rss, duplicates, lost = 0.0, 0, 0
        for number in range(given.rounds):
            for kind, speeds in runs.items():
                store.command(f"TRUNCATE TABLE ratchet.{TABLE}")
                done = child(kind, bootstrap, dsn, f"bench-{uuid.uuid4().hex[:8]}", given.events)
                speeds.append(given.events / done["seconds"])
                print(f"round {number + 1} {kind}: {speeds[-1]:,.0f} events/s, {done['rss_mb']:.0f} MB")
                if kind == "ratchet":
                    rss = max(rss, done["rss_mb"])
                    row = store.query_sql(COUNT, {"task": task})[0]
                    duplicates, lost = duplicates + row["n"] - row["ids"], lost + given.events - row["ids"]
        flush_s = 0.5
        fresh = freshness(bootstrap, dsn, store, given.rate, 15, flush_s)
        store.close()
    ratios = [own / other for own, other in zip(runs["ratchet"], runs["bare"], strict=True)]
    print(
        json.dumps(
            {
                "eps_bare": round(statistics.median(runs["bare"])),
                "eps_ratchet": round(statistics.median(runs["ratchet"])),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_low": round(min(ratios), 3),
                "ratio_high": round(max(ratios), 3),
                "duplicates": duplicates,
                "lost": lost,
                "rss_mb": round(rss),
                "freshness_p99_s": round(fresh, 3),
                "flush_interval_s": flush_s,
            }
        )
    )


def run_child(kind: str, bootstrap: str, dsn: str, group: str, last: str) -> None:
    """One round, or an ingest that runs until it is ended."""
    if kind == "steady":
        import signal

        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        publisher = KafkaPublisher(bootstrap, idempotence=False, client_id="bench-steady")
        Ingest(bootstrap, connect(dsn), publisher, float(last), group=group).run(stop)
        publisher.close()
        return
    seconds = {"bare": bare, "ratchet": ratchet}[kind](bootstrap, dsn, group, int(last))
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "rss_mb": peak_kb / 1024}))


if __name__ == "__main__":
    main()

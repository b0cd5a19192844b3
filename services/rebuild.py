"""`ratchet rebuild`: ClickHouse made again from the topics, beside what is there, and exchanged for it.

The tables are filled in a database of their own while everything else runs. They take their place
only when they hold every event that ClickHouse holds. A marker is set before the first table is exchanged; whoever
finds it carries back what the old tables have and the new ones lack: the rows that ingest stored
meanwhile, the same after a crash. So a kill at any moment loses nothing.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ratchet.consumers.refill import Refill
from ratchet.consumers.taking import CARRIED
from ratchet.infra.clickhouse import retention, twin
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clickhouse.twin import Table
from ratchet.infra.kafka.admin import offsets_since, ranges, wait_for_broker
from ratchet.infra.settings import Settings
from ratchet.schemas.errors import RebuildError
from ratchet.schemas.rows import TABLES
from ratchet.schemas.topics import FEEDBACK, INFERENCE, Partition
from ratchet.services import wiring
from ratchet.services.forgetting import sweep
from ratchet.services.learning import derive_pairs
from ratchet.services.rules.rebuilding import Compared, Position, refusal, unexpected
from ratchet.trainers.dataset import relist

Tell = Callable[[str], None]
TWIN = "ratchet_rebuild"
MARKER = "exchanging"
CLOSE = 20_000
"""Records behind at most, before the tables are compared: what ingest stores in a few seconds."""
SAY_S = 2.0
SETTLE_TRIES = 2


@dataclass(frozen=True)
class Rebuilt:
    """What was read and stored, and how every documented view stands."""

    records: int
    rows: int
    bad: int
    seconds: float
    views: list[Compared]


def rebuild(s: Settings, tell: Tell, keep_older: bool = False) -> Rebuilt:
    """Make ClickHouse again from the topics.

    Args:
        s: whose Kafka and ClickHouse.
        tell: takes a line about what is being done.
        keep_older: carry over what the topics no longer hold, instead of refusing.

    Raises:
        RebuildError: rows would be lost, or another rebuild runs; the tables are as they were.
        BrokerError: Kafka is away.
        StoreError: ClickHouse is away or refuses.
    """
    begun = time.monotonic()
    wait_for_broker(s.kafka, 10)
    with _alone(s), wiring.store(s) as live, wiring.store(s, TWIN) as new:
        migrate(live, cluster=wiring.cluster(s))
        if twin.distributed(live):
            raise RebuildError("the tables lie on several servers: a rebuild works on one; --from reads again on any")
        _start_clean(live, tell)
        sweep(s, live)  # else what it holds of forgotten users would be carried back
        migrate(new)
        retention.apply(new, wiring.retention(s))
        tables = twin.tables(live)
        refill = Refill(s.kafka, new)
        _catch_up(refill, tell)
        lost = _older(live, tables, refill, tell)
        missed = unexpected([_compare(live, table, rows) for table, rows in lost.items()])
        if missed and not keep_older:
            problem = refusal(missed, ranges(s.kafka, CARRIED))
            twin.drop(live, TWIN)
            raise RebuildError(problem)
        for table in lost:
            twin.carry(live, table, live.database, TWIN)
        _derive(s, live, new, tables, tell)
        views = [_compare(live, table, lost.get(table)) for table in tables if table.of_events]
        refill.read_on()
        tell("the rebuilt tables take their place")
        new.command(f"CREATE VIEW {MARKER} AS SELECT 1")
        twin.trade(live, [table.name for table in tables], live.database, TWIN)
        _start_clean(live, tell)
    return Rebuilt(refill.records, refill.rows, refill.bad, time.monotonic() - begun, views)


def refill_from(s: Settings, tell: Tell, positions: Sequence[Position]) -> Rebuilt:
    """Read partitions from given positions on once more, into the tables as they are.

    Ingest may run: its own position stays where it is, and rows that are there are replaced by themselves.

    Raises:
        RebuildError: a topic has no such partition, or it does not reach that far.
        BrokerError: Kafka is away.
        StoreError: ClickHouse is away or refuses.
    """
    begun = time.monotonic()
    wait_for_broker(s.kafka, 10)
    starts: dict[Partition, int] = {}
    for position in positions:
        starts |= _resolve(s, position)
    with wiring.store(s) as live:
        migrate(live, cluster=wiring.cluster(s))
        refill = Refill(s.kafka, live, starts)
        refill.read_on(_progress(tell))
        sweep(s, live)
        if {topic for topic, _ in starts} & {FEEDBACK.name, INFERENCE.name}:
            _pairs(s, live, tell)
        views = [_count(live, table) for table in twin.tables(live) if table.of_events]
    return Rebuilt(refill.records, refill.rows, refill.bad, time.monotonic() - begun, views)


def half_exchanged(live: Store) -> bool:
    """Whether a rebuild was killed while tables changed places, so that another one must carry rows back."""
    return twin.exists(live, TWIN, MARKER)


def _start_clean(live: Store, tell: Tell) -> None:
    """Drop the second database; had its tables begun to be exchanged, with what they alone have carried back first."""
    if half_exchanged(live):
        for table in twin.tables(live):
            if twin.exists(live, TWIN, table.name):
                twin.carry(live, table, TWIN, live.database)
    elif twin.exists(live, TWIN, "migrations"):
        tell("an earlier rebuild was interrupted; it starts anew")
    twin.drop(live, TWIN)


def _catch_up(refill: Refill, tell: Tell) -> None:
    while refill.read_on(_progress(tell)) > CLOSE:
        tell("reading what came meanwhile")


def _older(live: Store, tables: Sequence[Table], refill: Refill, tell: Tell) -> dict[Table, twin.Rows]:
    """What was stored by now and is in no topic, by table.

    Ingest runs on: what it had stored at an instant lies before the topics' ends after that instant.
    """
    until: datetime = live.query_sql("SELECT now64(6, 'UTC') AS now")[0]["now"]
    carried = [table for table in tables if _topics(table)]
    lost: dict[Table, twin.Rows] = {}
    # again, should another server's clock have been behind this one's
    for _ in range(SETTLE_TRIES):
        refill.read_on()
        tell("comparing with what is there")
        found = {table: twin.lacking(live, table, live.database, TWIN, until) for table in carried}
        lost = {table: rows for table, rows in found.items() if rows.n}
        if not lost:
            break
    return lost


def _derive(s: Settings, live: Store, new: Store, tables: Sequence[Table], tell: Tell) -> None:
    """What no topic carries: datasets from their manifests, pairs from their votes, the rest as it is there."""
    relist(new, s.home)
    for table in tables:
        if table.name == "forgotten_log":
            twin.carry(live, table, live.database, TWIN)
    if gone := sweep(s, new):
        tell(f"{gone} events of users who asked to be forgotten are left out")
    _pairs(s, new, tell)
    for table in tables:
        if not _topics(table):
            twin.carry(live, table, live.database, TWIN)


def _pairs(s: Settings, store: Store, tell: Tell) -> None:
    for row in store.query("pair_tasks"):
        counts, _ = derive_pairs(s, store, row["task"])
        tell(f"task {row['task']}: {counts.built} pairs")


def _compare(live: Store, table: Table, older: twin.Rows | None) -> Compared:
    before, after = twin.count(live, table, live.database), twin.count(live, table, TWIN)
    only = older or twin.Rows(0)
    return Compared(table.view, before, after, only.n, only.first, only.last, _topics(table))


def _count(live: Store, table: Table) -> Compared:
    n = twin.count(live, table, live.database)
    return Compared(table.view, n, n, topics=_topics(table))


def _topics(table: Table) -> tuple[str, ...]:
    return tuple(topic for topic, events in CARRIED.items() if table.name in {TABLES.get(event) for event in events})


def _resolve(s: Settings, position: Position) -> dict[Partition, int]:
    held = {part: offsets for part, offsets in ranges(s.kafka, [position.topic]).items() if position.covers(part)}
    if not held:
        raise RebuildError(f"{position.text}: Kafka at {s.kafka} has no such partition")
    if position.since is not None:
        found = offsets_since(s.kafka, position.topic, position.since)
        return {part: found[part] for part in held}
    if position.offset is None:
        return {part: offsets.start for part, offsets in held.items()}
    for (_, number), offsets in held.items():
        if not offsets.start <= position.offset <= offsets.stop:
            raise RebuildError(
                f"{position.text}: partition {number} holds the offsets {offsets.start} to {offsets.stop - 1}"
            )
    return {part: position.offset for part in held}


def _progress(tell: Tell) -> Callable[[int, int], None]:
    said = time.monotonic()

    def progress(behind: int, whole: int) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_S:
            said = time.monotonic()
            tell(f"{behind:,} of {whole:,} records ({behind / max(1, whole):.0%})")

    return progress


@contextmanager
def _alone(s: Settings) -> Iterator[None]:
    s.home.mkdir(parents=True, exist_ok=True)
    with (s.home / "rebuild.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RebuildError(f"another rebuild runs (it holds {s.home / 'rebuild.lock'})") from None
        yield

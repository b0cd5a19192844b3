"""Import a JSON or JSONL log: check every record first, then publish, then wait for ClickHouse."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.infra.kafka.config import record_limit
from ratchet.schemas.errors import BrokerError, DatasetError, StoreError
from ratchet.schemas.events import Feedback, Inference
from ratchet.schemas.rows import instant
from ratchet.schemas.topics import route
from ratchet.services.importing.records import Record, read_records
from ratchet.services.rules.mapping import BadRecord, Map, map_record

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.kafka.publisher import Publisher

MOST_BAD = 0.05
"""The share of bad records above which a map does not fit the file, so nothing is imported."""
SHOWN = 20
CHUNK = 1_000


@dataclass
class Report:
    """What an import found: records, events by schema, and the bad records with their reasons."""

    file: str
    records: int = 0
    bad: int = 0
    events: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    """The first bad records, each ``place: reason``."""
    published: int = 0
    stored: int | None = None
    """Events seen in ClickHouse; None where nobody waited for it."""

    def as_json(self) -> dict[str, object]:
        """The report as JSON has it."""
        return asdict(self)


def check(path: Path, mapping: Map) -> Report:
    """Map every record without publishing anything.

    Raises:
        DatasetError: the file cannot be read, has no record, or more than 5% of its records are bad.
    """
    report, events = Report(str(path)), Counter[str]()
    for record in read_records(path, mapping.records):
        report.records += 1
        problem = record.problem
        if problem is None:
            try:
                events.update(event.schema_ for event in _mapped(mapping, record))
            except BadRecord as error:
                problem = str(error)
        if problem is not None:
            report.bad += 1
            if len(report.examples) < SHOWN:
                report.examples.append(f"{record.place}: {problem}")
    report.events = dict(sorted(events.items()))
    if not report.records:
        raise DatasetError(f"{path}: no records in it")
    if report.bad > MOST_BAD * report.records:
        shown = "; ".join(report.examples[:5])
        raise DatasetError(
            f"{path}: {report.bad} of {report.records} records are bad, over {MOST_BAD:.0%}: nothing imported; {shown}"
        )
    return report


def publish(path: Path, mapping: Map, report: Report, publisher: Publisher, timeout_s: float = 60.0) -> None:
    """Publish the events of a checked file and wait until Kafka has them all.

    Raises:
        BrokerError: Kafka did not take them within ``timeout_s`` seconds of standing still.
    """
    for event in _events(path, mapping):
        try:
            publisher.publish(event)
        except BrokerError:
            # The local queue is full: let it drain, then this one fits.
            _flush(publisher, timeout_s)
            publisher.publish(event)
        report.published += 1
    _flush(publisher, timeout_s)


def wait_stored(
    path: Path,
    mapping: Map,
    report: Report,
    store: Store,
    timeout_s: float = 300.0,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until ClickHouse shows every event of the file.

    Raises:
        StoreError: some are not there ``timeout_s`` seconds after the last progress.
    """
    report.stored = 0
    events = _events(path, mapping)
    while chunk := list(islice(events, CHUNK)):
        # The same record twice is the same event: it is stored once.
        ids = sorted({event.id for event in chunk})
        first, last = min(event.at for event in chunk), max(event.at for event in chunk)
        deadline, seen = clock() + timeout_s, -1
        while True:
            (row,) = store.query("imported_count", task=mapping.task, ids=ids, first=instant(first), last=instant(last))
            if row["n"] == len(ids):
                break
            if row["n"] > seen:
                deadline, seen = clock() + timeout_s, row["n"]
            if clock() > deadline:
                missing = len(ids) - row["n"]
                raise StoreError(
                    f"{missing} of {len(ids)} events are not in ClickHouse after {timeout_s:g} s: is ingest running?"
                )
            pause(0.25)
        report.stored += len(ids)


def _events(path: Path, mapping: Map) -> Iterator[Inference | Feedback]:
    for record in read_records(path, mapping.records):
        if record.problem is None:
            try:
                yield from _mapped(mapping, record)
            except BadRecord:
                continue  # `check` has counted and reported it


def _mapped(mapping: Map, record: Record) -> list[Inference | Feedback]:
    """The record's events; one that Kafka would not take makes the whole record bad."""
    events = map_record(mapping, record.value, record.index)
    for event in events:
        limit = record_limit(route(event)[0].name)
        if (size := len(event.to_bytes())) > limit:
            raise BadRecord(f"{event.schema_} of {size} bytes; allowed: {limit}")
    return events


def _flush(publisher: Publisher, timeout_s: float) -> None:
    left = publisher.flush(timeout_s)
    if left:
        raise BrokerError(
            f"Kafka did not take {left} events within {timeout_s:g} s; import the file again when it is back"
        )

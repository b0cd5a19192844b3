"""The writer's promises, with a store that fails on purpose."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from ratchet.consumers.rules.batch import Batch
from ratchet.consumers.writer import Writer
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import StoreError


class FailingStore:
    """Refuses the first inserts, then takes all."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.tables: list[str] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def insert_json(self, table: str, lines: bytes) -> int:
        self.entered.set()
        assert self.go.wait(10)
        if self.refusals > 0:
            self.refusals -= 1
            raise StoreError("ClickHouse is away")
        self.tables.append(table)
        return lines.count(b"\n") + 1


def batch(offset: int) -> Batch:
    """One row of one table, read at ``offset`` of partition 0."""
    made = Batch()
    made.add("feedback_log", b"{}")
    made.passed(("ratchet.feedback", 0), offset, now_s=0)
    return made


def writer(store: FailingStore, publisher: MemoryPublisher, stop: threading.Event) -> Writer:
    """A writer on these parts."""
    return Writer(cast(Store, store), publisher, stop)


def test_offsets_are_given_out_once_and_only_after_the_insert() -> None:
    """Nothing may be committed while the insert runs; afterwards it is, once."""
    store = FailingStore(0)
    made = writer(store, MemoryPublisher(), threading.Event())
    store.go.clear()
    made.submit(batch(6))
    assert store.entered.wait(10)
    assert made.stored() == {}
    store.go.set()
    assert made.wait(10)
    assert made.stored() == {("ratchet.feedback", 0): 7}
    assert made.stored() == {}
    assert (made.rows, made.batches) == (1, 1)
    made.close()


def test_a_store_that_is_away_is_tried_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """The batch gets in after refusals; that it waits and that it goes on is said once each."""
    made = writer(FailingStore(2), MemoryPublisher(), threading.Event())
    made.submit(batch(0))
    assert made.wait(30)
    assert made.stored() == {("ratchet.feedback", 0): 1}
    assert sum("rows wait" in text for text in caplog.messages) == 1
    assert sum("takes rows again" in text for text in caplog.messages) == 1
    made.close()


def test_no_batch_overtakes_one_that_was_left(caplog: pytest.LogCaptureFixture) -> None:
    """A stop leaves a stuck batch to redelivery; a later batch, though it could be stored, must not pass over it."""
    stop = threading.Event()
    stop.set()
    store = FailingStore(1)
    made = writer(store, MemoryPublisher(), stop)
    made.submit(batch(0))
    assert made.wait(10)
    made.submit(batch(1))
    assert made.wait(10)
    assert made.stored() == {}
    assert store.tables == []
    assert "left to redelivery" in caplog.text
    made.close()


def test_undelivered_dead_letters_hold_the_commit_back() -> None:
    """With a dead letter that Kafka did not take, the rows are in but nothing may be committed."""
    stop = threading.Event()
    stop.set()
    publisher = MemoryPublisher()
    publisher.away = True
    publisher.send("ratchet.dead-letter", None, b"{}")
    made = writer(FailingStore(0), publisher, stop)
    bad = batch(0)
    bad.dead_letters = 1
    made.submit(bad)
    assert made.wait(10)
    assert made.stored() == {}
    made.close()


def test_a_lost_assignment_takes_its_offsets_with_it() -> None:
    """A batch that was being stored when the partitions went is stored, but its offsets are not committed."""
    store = FailingStore(0)
    store.go.clear()
    made = writer(store, MemoryPublisher(), threading.Event())
    made.submit(batch(0))
    assert store.entered.wait(10)
    made.forget()
    store.go.set()
    assert made.wait(10)
    assert store.tables == ["feedback_log"]
    assert made.stored() == {}
    made.submit(batch(1))
    assert made.wait(10)
    assert made.stored() == {("ratchet.feedback", 0): 2}
    made.close()


def test_an_unforeseen_error_ends_the_consumer() -> None:
    """What is no StoreError is a bug: it reaches the caller, and nothing is committed."""

    class Broken(FailingStore):
        def insert_json(self, table: str, lines: bytes) -> int:
            raise ZeroDivisionError

    made = writer(Broken(0), MemoryPublisher(), threading.Event())
    made.submit(batch(0))
    with pytest.raises(ZeroDivisionError):
        made.wait(10)
    made.submit(batch(1))
    assert made.stored() == {}
    made.close()

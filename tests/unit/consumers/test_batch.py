"""When a batch is inserted and what may be committed with it."""

from __future__ import annotations

from ratchet.consumers.rules.batch import Batch, BatchLimits

LIMITS = BatchLimits(flush_interval_s=0.5, rows=3, size=100)


def test_an_empty_batch_is_never_due() -> None:
    """Without a record there is nothing to insert and nothing to commit."""
    assert not Batch().due(LIMITS, now_s=1e9)


def test_the_first_record_starts_the_interval() -> None:
    """A lone record waits for company for the interval, no longer."""
    batch = Batch()
    batch.passed(("t", 0), 7, now_s=10.0)
    batch.passed(("t", 0), 8, now_s=10.4)
    assert not batch.due(LIMITS, 10.49)
    assert batch.due(LIMITS, 10.5)


def test_rows_or_bytes_make_it_due_at_once() -> None:
    """A full batch does not wait."""
    by_rows, by_size = Batch(), Batch()
    for _ in range(3):
        by_rows.add("t", b"{}")
    by_size.add("t", b"x" * 100)
    for batch in (by_rows, by_size):
        batch.passed(("t", 0), 0, now_s=0)
        assert batch.due(LIMITS, 0)


def test_offsets_are_those_after_the_last_record() -> None:
    """Kafka commits the next offset to read, a partition at a time, also for records without a row."""
    batch = Batch()
    batch.passed(("a", 0), 4, 0)
    batch.passed(("a", 0), 5, 0)
    batch.passed(("a", 1), 0, 0)
    assert batch.offsets == {("a", 0): 6, ("a", 1): 1}
    assert batch.rows == 0

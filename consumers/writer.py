"""Ingest's second thread: inserts a batch and has its dead letters delivered; then its offsets may be committed."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ratchet.consumers.rules.batch import Batch
from ratchet.consumers.rules.decode import plain
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.backoff import backoff_s
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import StoreError, StoreRefused
from ratchet.schemas.topics import Partition

log = logging.getLogger("ratchet.ingest")
DELIVERY_S = 10.0
LAST_BACKOFF_S = 5.0


class Writer:
    """Writes one batch at a time in the background.

    ClickHouse releases the interpreter while it takes an insert, so the next batch is
    decoded meanwhile. A batch is tried until it is in, however long ClickHouse is away;
    after `stop` it is tried once more and then left to redelivery.
    """

    def __init__(self, store: Store, publisher: Publisher, stop: threading.Event) -> None:
        """Start idle.

        Args:
            store: where rows go.
            publisher: on which the batch's dead letters were published.
            stop: set when no more tries should be made.
        """
        self.rows = 0
        self.batches = 0
        self.away = False
        self._store = store
        self._publisher = publisher
        self._stop = stop
        self._stored: dict[Partition, int] = {}
        self._assignment = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest-writer")
        self._writing: Future[None] | None = None
        self._left = False

    def idle(self) -> bool:
        """Whether a batch can be submitted; raises what ended the last one."""
        if self._writing is None:
            return True
        if not self._writing.done():
            return False
        writing, self._writing = self._writing, None
        writing.result()
        return True

    def submit(self, batch: Batch) -> None:
        """Write ``batch`` in the background; only when `idle`.

        Once a batch was left unstored, none after it is written: its commit would pass over the first.
        """
        assert self._writing is None, "one batch at a time"
        if self._left:
            log.warning("%d rows more are left to redelivery", batch.rows)
            return
        self._writing = self._threads.submit(self._write, batch, self._assignment)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the batch that is being written; False if it takes longer than ``timeout_s`` seconds."""
        if self._writing is not None:
            wait([self._writing], timeout=timeout_s)
        return self.idle()

    def stored(self) -> dict[Partition, int]:
        """Offsets whose records are stored since the last call, as Kafka commits them."""
        with self._lock:
            stored, self._stored = self._stored, {}
        return stored

    def forget(self) -> None:
        """The partitions were taken away: what was stored of them is no longer this member's to commit.

        A broker that lost its memory would take old offsets for positions in its new records,
        and pass over those.
        """
        with self._lock:
            self._assignment += 1
            self._stored = {}

    def close(self) -> None:
        """End the thread, after the batch that is being written."""
        self._threads.shutdown(wait=True)

    def _write(self, batch: Batch, assignment: int) -> None:
        self._left = True
        if self._store_batch(batch):
            self._left = False
            self.rows += batch.rows
            self.batches += 1
            with self._lock:
                if assignment == self._assignment:
                    self._stored |= batch.offsets

    def _store_batch(self, batch: Batch) -> bool:
        for table, lines in batch.lines.items():
            if not self._insert(table, lines):
                log.warning("stopped before %d rows were stored; they are read again", batch.rows)
                return False
        if batch.dead_letters and not self._deliver():
            log.warning("stopped before %d dead letters were delivered; they are read again", batch.dead_letters)
            return False
        return True

    def _insert(self, table: str, lines: list[bytes]) -> bool:
        failures = 0
        while True:
            try:
                insert(self._store, table, lines)
            except StoreError as error:
                failures += 1
                if not self.away:
                    self.away = True
                    log.error(
                        "rows wait, nothing more is read, tried again at most every %g s: %s", LAST_BACKOFF_S, error
                    )
                if self._stop.wait(backoff_s(failures, last_s=LAST_BACKOFF_S)):
                    return False
                continue
            if self.away:
                self.away = False
                log.warning("ClickHouse takes rows again")
            return True

    def _deliver(self) -> bool:
        said = False
        while left := self._publisher.flush(DELIVERY_S):
            if not said:
                said = True
                log.error("%d dead letters are undelivered; nothing is acknowledged until they are", left)
            if self._stop.is_set():
                return False
        return True


def insert(store: Store, table: str, lines: list[bytes]) -> None:
    """Insert lines as they came, and built anew where ClickHouse refuses them so.

    Raises:
        StoreError: ClickHouse is away, or refuses them either way.
    """
    try:
        store.insert_json(table, b"\n".join(lines))
    except StoreRefused as error:
        log.info("%s: rows are built anew: %s", table, error)
        store.insert_json(table, b"\n".join([plain(line) for line in lines]))

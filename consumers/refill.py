"""What topics hold, into tables once more: ingest's decoding and batches, without its group.

No offset is committed and nothing is published: what is no event was dead-lettered when ingest
met it, and is counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ratchet.consumers.rules.batch import Batch, BatchLimits
from ratchet.consumers.taking import CARRIED, take
from ratchet.consumers.writer import insert
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.admin import ranges
from ratchet.infra.kafka.history import read
from ratchet.schemas.topics import Partition

Progress = Callable[[int, int], None]
"""Takes how many offsets are behind and how many there are in all."""


class Refill:
    """Reads the topics that end up in ClickHouse, from given offsets on, into a store's tables.

    ``records``, ``rows`` and ``bad`` count what was read, stored and no event since it was made;
    ``ends`` says by partition how far everything was read.
    """

    def __init__(
        self,
        bootstrap: str,
        store: Store,
        starts: Mapping[Partition, int] | None = None,
        limits: BatchLimits | None = None,
    ) -> None:
        """Prepare; `read_on` reads.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            store: its tables exist.
            starts: offsets to start at, of these partitions alone; None: everything, from its beginning.
            limits: rows and bytes of an insert.
        """
        self.records = self.rows = self.bad = 0
        self.ends: dict[Partition, int] = dict(starts or {})
        self._bootstrap = bootstrap
        self._store = store
        self._topics = {topic for topic, _ in starts} if starts else set(CARRIED)
        self._chosen = None if starts is None else frozenset(starts)
        self._limits = limits or BatchLimits()

    def read_on(self, progress: Progress = lambda _behind, _all: None) -> int:
        """Read from where the last call ended to what the topics hold now; returns how many records that were.

        Raises:
            BrokerError: Kafka is away.
            StoreError: ClickHouse is away, or refuses rows.
        """
        held = ranges(self._bootstrap, self._topics)
        wanted = {
            partition: range(max(self.ends.get(partition, 0), offsets.start), offsets.stop)
            for partition, offsets in held.items()
            if self._chosen is None or partition in self._chosen
        }
        before = self.records
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="refill") as thread:
            self._read(wanted, thread, progress)
        self.ends |= {partition: offsets.stop for partition, offsets in wanted.items()}
        return self.records - before

    def _read(self, wanted: Mapping[Partition, range], thread: ThreadPoolExecutor, progress: Progress) -> None:
        whole = sum(map(len, wanted.values()))
        at = {partition: offsets.start for partition, offsets in wanted.items()}
        batch, writing = Batch(), None
        for messages in read(self._bootstrap, wanted):
            taken = take(messages)
            self.records += len(messages)
            self.bad += len(taken.bad)
            for table, line in taken.rows:
                batch.add(table, line)
            at |= {partition: offset + 1 for partition, offset in taken.passed.items()}
            if batch.full(self._limits):
                writing, batch = self._submit(thread, batch, writing), Batch()
                progress(sum(at[partition] - offsets.start for partition, offsets in wanted.items()), whole)
        last = self._submit(thread, batch, writing)
        last.result()
        progress(whole, whole)

    def _submit(self, thread: ThreadPoolExecutor, batch: Batch, before: Future[None] | None) -> Future[None]:
        """Insert in the background, so that decoding goes on; raises what the insert before this one met."""
        if before is not None:
            before.result()
        return thread.submit(self._insert, batch)

    def _insert(self, batch: Batch) -> None:
        for table, lines in batch.lines.items():
            insert(self._store, table, lines)
        self.rows += batch.rows

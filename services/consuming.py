"""The consumers of one process: what stores, measures, watches, tells and tracks, side by side until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from ratchet.infra import clock
from ratchet.schemas.errors import BrokerError, StoreError
from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.consumers.pairs import Pairs
    from ratchet.consumers.trigger import Trigger
    from ratchet.infra.settings import Settings

log = logging.getLogger("ratchet")
STREAMS = ("checks", "judge", "pairs", "drift", "alerts", "tracking")
CONSUMERS = ("ingest", *STREAMS)
PAIRS_S = 1.0
"""Seconds between two derivations of the pairs that new feedback touches."""
SWEEP_S = 10.0
"""Seconds between two looks for feedback that made no pair yet, and for a trigger whose cooldown ended."""

FIND_S = 60.0
"""Seconds between two looks for pairs that nobody voted for."""
FIND_OVERLAP = timedelta(minutes=10)
"""What was stored a little before the last look is looked at again: clocks differ, and batches come in late."""
LOOK_BACK = timedelta(days=1)
"""How long feedback waits for an inference that is stored late; a restart looks at all of it."""


def ingest(s: Settings, stop: threading.Event) -> None:
    """Ingest, and beside it in a thread the rollups of the hours that grew quiet."""
    from ratchet.consumers.ingest import Ingest
    from ratchet.consumers.rules.flood import FloodPolicy
    from ratchet.infra.clickhouse.rollup import keep_rolled

    store, publisher = wiring.store(s), wiring.publisher(s, "ratchet-ingest")
    ended = threading.Event()
    rolling = threading.Thread(target=keep_rolled, args=(store, ended), name="rollups")
    rolling.start()
    try:
        flood = FloodPolicy(minimum=s.flood_minimum)
        Ingest(s.kafka, store, publisher, s.flush_interval_s, flood=flood).run(stop)
    finally:
        ended.set()
        rolling.join()
        publisher.close()
        store.close()


async def everything(s: Settings, streams: Sequence[str], stop: asyncio.Event) -> None:
    """Ingest in a thread of its own beside the streams; whichever ends, both end."""
    ended = threading.Event()

    async def storing() -> None:
        try:
            await asyncio.to_thread(ingest, s, ended)
        finally:
            stop.set()

    async def measuring() -> None:
        try:
            await consume(s, streams, stop)
        finally:
            ended.set()

    await asyncio.gather(storing(), measuring())


async def consume(s: Settings, names: Sequence[str], stop: asyncio.Event) -> None:
    """What measures, what watches and what tells people, side by side; whichever ends, all end."""

    async def whole(part: Awaitable[None]) -> None:
        try:
            await part
        finally:
            stop.set()

    measuring = [name for name in names if name not in ("drift", "alerts", "tracking")]
    parts = [_measure(s, measuring, stop)] if measuring else []
    parts += [_watch(s, stop)] if "drift" in names else []
    parts += [_tell(s, stop)] if "alerts" in names else []
    parts += [_track(s, stop)] if "tracking" in names and s.tracking is not None else []
    await asyncio.gather(*map(whole, parts))


async def _watch(s: Settings, stop: asyncio.Event) -> None:
    """Judge each hour for drift, beside the loop; it needs no consumer."""
    from ratchet.consumers.monitor import keep_watching

    store, publisher = wiring.store(s), wiring.publisher(s, "ratchet-drift")
    try:
        await keep_watching(wiring.monitor(s, store, publisher), stop)
    finally:
        await asyncio.to_thread(publisher.close)
        store.close()


async def _tell(s: Settings, stop: asyncio.Event) -> None:
    """Tell people of alerts; it needs no ClickHouse."""
    from ratchet.consumers.notify import Notifier, register
    from ratchet.infra.kafka.stream import make_broker

    outbox, publisher, broker = wiring.outbox(s), wiring.publisher(s, "ratchet-alerts"), make_broker(s.kafka)
    notifier = Notifier(outbox, s.sinks, clock.now, random.random)
    register(broker, notifier, publisher)
    try:
        await broker.start()
        await notifier.run(stop)
        await broker.stop()
    finally:
        await asyncio.to_thread(publisher.close)
        outbox.close()


async def _track(s: Settings, stop: asyncio.Event) -> None:
    """Show training jobs as runs of the tracker; it needs no ClickHouse."""
    from ratchet.consumers.tracking import Tracking, register
    from ratchet.infra.kafka.stream import make_broker

    tracker, publisher, broker = wiring.tracker(s), wiring.publisher(s, "ratchet-tracking"), make_broker(s.kafka)
    register(broker, Tracking(tracker), publisher)
    try:
        await broker.start()
        await stop.wait()
        await broker.stop()
    finally:
        await asyncio.to_thread(tracker.close)
        await asyncio.to_thread(publisher.close)


async def _measure(s: Settings, names: Sequence[str], stop: asyncio.Event) -> None:
    from ratchet.consumers import anchors, checks, judge, pairs
    from ratchet.consumers.again import Again
    from ratchet.consumers.pairwise import Pairwise
    from ratchet.consumers.thumbs import Thumbs
    from ratchet.consumers.trigger import Trigger
    from ratchet.infra.kafka.stream import make_broker

    store, publisher = wiring.store(s), wiring.publisher(s, "ratchet-consumers")
    broker = make_broker(s.kafka)
    clients = wiring.judges(s) if "judge" in names else {}
    cache = wiring.judge_cache(s) if clients else None
    building: asyncio.Task[None] | None = None
    looking: list[asyncio.Task[None]] = []
    checking = checks.register(broker, s.tasks, publisher, s.config_dir) if "checks" in names else None
    if clients:
        await asyncio.to_thread(judge.recall_spent, store, clients, clock.now())
        judging = judge.register(broker, s.tasks, publisher, clients, cache=cache, rubrics=s.rubrics)
        comparing = Pairwise(store, s.tasks, publisher, clients, cache=cache, rubrics=s.rubrics)
        thumbs = Thumbs(store, judging, publisher)
        graders = anchors.graders_of(s.tasks, clients, s.rubrics)
        anchoring = anchors.Anchoring(s.tasks, s.config_dir, graders, store, publisher)
        again = Again(store, judging)
        chores = (
            thumbs.keep_looking(stop),
            again.keep_looking(stop),
            comparing.keep_looking(stop),
            anchoring.keep_scored(stop),
        )
        looking = [asyncio.create_task(chore) for chore in chores]
        for task in looking:
            task.add_done_callback(lambda _: stop.set())
    if "pairs" in names:
        trigger = Trigger(store, publisher, s.tasks, clock.now)
        builder = pairs.Pairs(store, s.tasks, after=trigger.consider)
        pairs.register(broker, builder, publisher)
        building = asyncio.create_task(_build(builder, trigger, list(s.tasks), stop))
    try:
        await broker.start()
        await stop.wait()
        await broker.stop()
    finally:
        stop.set()
        if building is not None:
            await building
        for task in looking:
            task.cancel()  # whatever it was at, the next start finds it again
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for client in clients.values():
            await client.close()
        if cache is not None:
            cache.close()
        if checking is not None:
            checking.close()
        await asyncio.to_thread(publisher.close)
        store.close()


async def _build(builder: Pairs, trigger: Trigger, tasks: Sequence[str], stop: asyncio.Event) -> None:
    """Make the pairs of what came in, and every now and then repair pairs and consider training.

    What is away is left for the next time: the builder keeps its feedback, and sweeps when it starts.
    """
    said, next_sweep, next_find = "", 0.0, 0.0
    found_until = clock.now() - LOOK_BACK
    while True:
        last = stop.is_set()
        try:
            await builder.flush(last)
            if not last and time.monotonic() >= next_sweep:
                next_sweep = time.monotonic() + SWEEP_S
                for task in tasks:
                    if task in builder.stale:
                        await builder.sweep(task)
                    await builder.catch_up(task, clock.now() - LOOK_BACK)
                    await trigger.consider(task)
            if not last and time.monotonic() >= next_find:
                next_find = time.monotonic() + FIND_S
                looked = clock.now()
                for task in tasks:
                    await builder.find(task, found_until)
                found_until = looked - FIND_OVERLAP
        except (StoreError, BrokerError) as error:
            if str(error) != said:
                said = str(error)
                log.warning("pairs and the trigger wait: %s", said)
        if last:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PAIRS_S)

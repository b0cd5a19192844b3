"""The main loops of the long-running commands: each takes its parts from the wiring and runs until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from ratchet.infra import clock
from ratchet.schemas.errors import SettingsError
from ratchet.services import wiring
from ratchet.services.consuming import CONSUMERS, STREAMS, consume, everything, ingest

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings

log = logging.getLogger("ratchet")


def run_gateway(s: Settings) -> None:
    """Serve the gateway until SIGTERM or SIGINT."""
    from ratchet.services.gateway.serve import listen, serve

    if not s.tasks:
        raise SettingsError("tasks: none is declared, so there is nothing to serve; write [tasks.<name>]")
    keys = wiring.keyring(s)
    listener = listen(s.gateway_host, s.gateway_port, keyed=keys.keys is not None)
    publisher = wiring.spooled_publisher(s, "gateway")
    serve(
        s.tasks,
        base_model=s.base_model,
        upstreams=s.vllm,
        bootstrap=s.kafka,
        listener=listener,
        publisher=publisher,
        spool=publisher.status,
        accepts=publisher.accepts,
        keys=keys,
        options=wiring.gateway_options(s),
    )


def run_consumers(s: Settings, names: Sequence[str]) -> None:
    """Run the named consumers (none: all) until SIGTERM or SIGINT.

    Raises:
        SettingsError: a name that is no consumer's.
        RatchetError: a part refused for good, or bad messages flooded in.
    """
    chosen = list(names) or list(CONSUMERS)
    for name in chosen:
        if name not in CONSUMERS:
            raise SettingsError(f"consumer {name!r}; allowed: {', '.join(CONSUMERS)}")
    if "tracking" in names and s.tracking is None:
        raise SettingsError("consumer 'tracking': no tracker is set; write [tracking] with kind and url")
    streams = [name for name in chosen if name in STREAMS]
    if "ingest" not in chosen:
        asyncio.run(_until_signal(lambda stop: consume(s, streams, stop)))
    elif not streams:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        ingest(s, stop)
    else:
        asyncio.run(_until_signal(lambda stop: everything(s, streams, stop)))


def warn_of_policies(s: Settings) -> None:
    """Log what is wrong with the tasks' rollout policies, whatever their traffic."""
    from ratchet.services.rollout_plan import findings

    for task, policy in s.tasks.items():
        for found in findings(policy, None, s.prioritises):
            log.warning("task %s: %s", task, found)


def run_controller(s: Settings) -> None:
    """Run the rollout controller, and what tells hooks of its transitions, until SIGTERM or SIGINT."""
    from ratchet.infra.clickhouse.later import LaterStore
    from ratchet.services.controller.follow import control
    from ratchet.services.controller.hooks import telling

    warn_of_policies(s)

    async def run(stop: asyncio.Event) -> None:
        # a person must be heard while ClickHouse is away
        store, publisher = LaterStore(lambda: wiring.store(s)), wiring.publisher(s, "ratchet-controller")
        try:
            async with telling(s.kafka, s.rollout_hooks, publisher, clock.now):
                await control(wiring.controller(s, store, publisher), s.kafka, stop)
        finally:
            await asyncio.to_thread(publisher.close)
            store.close()

    asyncio.run(_until_signal(run))


def run_worker(s: Settings) -> None:
    """Serve `ratchet.training` until SIGTERM or SIGINT; a run under way is ended and done again later."""
    from ratchet.infra.kafka.stream import make_broker, subscribe
    from ratchet.schemas.topics import TRAINING
    from ratchet.services.learning import make_worker
    from ratchet.trainers.worker import MAX_POLL_INTERVAL_S

    async def run(stop: asyncio.Event) -> None:
        store, publisher = wiring.store(s), wiring.publisher(s, "ratchet-trainer")
        worker = make_worker(s, store, publisher)
        broker = make_broker(s.kafka)
        subscribe(broker, TRAINING, "trainer", worker.handle, publisher, max_poll_interval_s=MAX_POLL_INTERVAL_S)
        try:
            await broker.start()
            await stop.wait()
            await worker.stop()
            await broker.stop()
        finally:
            await asyncio.to_thread(publisher.close)
            store.close()

    asyncio.run(_until_signal(run))


async def _until_signal(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(stop)

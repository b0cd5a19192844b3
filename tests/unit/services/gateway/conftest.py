"""A gateway under uvicorn beside the folder above's model servers, all over real HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from aiohttp import web

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Event
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.gateway.app import Gateway
from ratchet.services.gateway.assemble import create_app
from ratchet.services.gateway.options import GatewayOptions, PoolOptions
from ratchet.services.gateway.routes import RoutingTables

E = TypeVar("E", bound=Event)
BASE_MODEL = "tiny"
STABLE = "support@v1-aaaaaaaa"
CANDIDATE = "support@v2-bbbbbbbb"
PATIENCE_S = 10.0
OPTIONS = {field.name for field in fields(GatewayOptions)}


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the signals are pytest's


@dataclass
class World:
    """The gateway's address and everything around it that a test looks at or changes."""

    url: str
    peer: Any
    publisher: MemoryPublisher
    routes: RoutingTables
    app: Gateway
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None]
    """Stops the gateway, cleanly, and waits for that."""

    def events(self, kind: type[E], count: int) -> list[E]:
        """Wait until ``count`` events of a kind are published (shadows come after the response) and return them."""
        found: list[E] = []
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = [event for event in self.publisher.events if isinstance(event, kind)]
            if len(found) >= count:
                break
            time.sleep(0.01)
        assert len(found) == count, found
        return found

    def await_metric(self, line: str) -> None:
        """Wait until the metrics have a line (they are counted after the response)."""
        deadline = time.monotonic() + PATIENCE_S
        while line not in (text := httpx.get(f"{self.url}/metrics").text):
            assert time.monotonic() < deadline, text
            time.sleep(0.01)

    def roll_out(self, *, weight_bp: int, mirror_bp: int = 0, stable: str = STABLE) -> Rollout:
        """Hand the gateway a routing table with a candidate under way."""
        table = Rollout(
            id=new_id(),
            at=now(),
            task="support",
            rollout_id=new_id(),
            version=1,
            status="running",
            stage="5%",
            stage_started_at=now(),
            stable=stable,
            candidate=CANDIDATE,
            weight_bp=weight_bp,
            mirror_bp=mirror_bp,
            salt="s",
            action="advance",
        )
        self.routes.apply(table)
        return table

    def hold(self, only: str | None = None, server: Any = None) -> Callable[[], object]:
        """Make a model server (this world's peer) wait, with ``only`` one model of it; returns what lets it go on."""
        gate, server = asyncio.Event(), server or self.peer
        if only:
            server.faults[only] = "held"
        server.gate = gate
        return lambda: self.loop.call_soon_threadsafe(gate.set)


Serve = Callable[..., World]


@contextmanager
def serving(model_server: Callable[[], Any]) -> Iterator[Serve]:
    """Start gateways with arguments of the caller's own; all stop at the end.

    ``others`` are more model servers beside ``peer``; ``place`` makes the placement of their addresses.
    ``elsewhere`` are those of other pools, by their base model; ``providers`` names the pools that are providers'.
    """
    running: list[Callable[[], None]] = []

    def start(
        peer: Any = None,
        upstreams: list[str] | None = None,
        others: Sequence[Any] = (),
        elsewhere: Mapping[str, Any] = MappingProxyType({}),
        providers: Mapping[str, str] = MappingProxyType({}),
        **arguments: Any,
    ) -> World:
        peer = peer or model_server()
        started = threading.Event()
        worlds: list[World] = []
        servers: list[_Server] = []

        http = arguments.pop("http", "auto")

        async def main() -> None:
            runners = []
            for server in (*others, peer, *elsewhere.values()):
                runners.append(web.AppRunner(server.app(), handler_cancellation=True, shutdown_timeout=0.1))
                await runners[-1].setup()
                site = web.TCPSite(runners[-1], "127.0.0.1", 0)
                await site.start()
                assert site._server is not None
                server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
            urls = [*(upstreams or []), *(server.url for server in (*others, peer))]
            if place := arguments.pop("place", None):
                arguments["placement"] = place(tuple(urls))
            arguments["pools"] = {
                base: PoolOptions(urls=(server.url,), provider=base in providers, api_key=providers.get(base))
                for base, server in elsewhere.items()
            }
            chosen = {name: arguments.pop(name) for name in OPTIONS & arguments.keys()}
            publisher = arguments.pop("publisher", None) or MemoryPublisher()
            routes = RoutingTables()
            app = create_app(
                arguments.pop("tasks", {"support": TaskPolicy(system_prompt="Be brief."), "bare": TaskPolicy()}),
                BASE_MODEL,
                urls,
                publisher,
                routes,
                options=GatewayOptions(**({"poll_s": 0.1} | chosen)),
                **arguments,
            )
            listener = socket.create_server(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            gateway = _Server(
                uvicorn.Config(app, http=http, lifespan="on", log_level="warning", timeout_graceful_shutdown=2)
            )
            servers.append(gateway)
            loop = asyncio.get_running_loop()
            worlds.append(World(f"http://127.0.0.1:{port}", peer, publisher, routes, app, loop, stop))
            task = asyncio.create_task(gateway.serve(sockets=[listener]))
            while not gateway.started and not task.done():  # noqa: ASYNC110 - uvicorn tells by a flag only
                await asyncio.sleep(0.005)
            started.set()
            await task
            for runner in runners:
                await runner.cleanup()

        def stop() -> None:
            servers[0].should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert started.wait(PATIENCE_S)
        running.append(stop)
        return worlds[0]

    try:
        yield start
    finally:
        for stop in running:
            stop()


@pytest.fixture
def serve(model_server: Callable[[], Any]) -> Iterator[Serve]:
    """Start gateways with arguments of the test's own."""
    with serving(model_server) as start:
        yield start


@pytest.fixture
def world(serve: Serve) -> World:
    """A gateway with the tasks ``support`` (with a system prompt) and ``bare``."""
    return serve()


@pytest.fixture(scope="module")
def refusing(model_server: Callable[[], Any]) -> Iterator[World]:
    """One gateway for all the tests of a module whose requests are refused and leave nothing behind."""
    with serving(model_server) as start:
        yield start()

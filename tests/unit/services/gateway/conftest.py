"""A gateway under uvicorn and a model server that speaks OpenAI's protocol, both over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from aiohttp import web

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Event, Rollout
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.app import Gateway, create_app
from ratchet.services.gateway.routes import RoutingTables

E = TypeVar("E", bound=Event)
BASE_MODEL = "tiny"
STABLE = "support@v1-aaaaaaaa"
CANDIDATE = "support@v2-bbbbbbbb"
PATIENCE_S = 10.0


@dataclass
class ModelServer:
    """The test's model server. ``faults`` names, by model, what goes wrong with it.

    A fault is an HTTP status, or ``drop`` (connection closed at once), ``hang`` (no answer),
    ``held`` (an answer once `World.hold`'s gate opens),
    ``garbage`` (200 and no JSON), ``lingers`` (a stream whose connection stays open for a while behind its end),
    ``cut`` (a stream that breaks off after its first word) or
    ``late`` (an error event after the first word).
    """

    models: list[str] = field(default_factory=lambda: [BASE_MODEL, STABLE, CANDIDATE])
    faults: dict[str, int | str] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    words: tuple[str, ...] = ("All", " is", " well")
    gate: asyncio.Event | None = None
    """Set: every answer after a stream's first word waits for it."""
    left: threading.Event = field(default_factory=threading.Event)
    """A client hung up on a stream."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_post("/v1/completions", self.complete)
        return app

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        fault = self.faults.get(body["model"])
        if isinstance(fault, int):
            return web.json_response({"error": {"message": f"fault {fault}", "code": fault}}, status=fault)
        if body["model"] not in self.models:
            return web.json_response({"error": {"message": "no such model", "code": 404}}, status=404)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await asyncio.sleep(60)
        if fault == "garbage":
            return web.Response(text="<html>", content_type="application/json")
        if fault == "held":
            assert self.gate is not None
            await self.gate.wait()
            return web.json_response(self.whole(request.path, body))
        if body.get("stream"):
            return await self.stream(request, body, fault)
        if self.gate and "held" not in self.faults.values():
            await self.gate.wait()
        return web.json_response(self.whole(request.path, body))

    def whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        text = "".join(self.words)
        if body.get("tools"):
            call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}
            part: dict[str, Any] = {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}
        elif path.endswith("chat/completions"):
            part = {"message": {"role": "assistant", "content": text}}
        else:
            part = {"text": text}
        finish = "tool_calls" if body.get("tools") else "stop"
        choices = [{"index": i, "finish_reason": finish, "logprobs": None, **part} for i in range(body.get("n") or 1)]
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return {**head, "choices": choices, "usage": usage}

    def deltas(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if body.get("tools"):
            first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
            parts = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"order"', ": 7}")]
            return [{"delta": {"tool_calls": [part]}} for part in (first, *parts)]
        if path.endswith("chat/completions"):
            return [{"delta": {"role": "assistant"}}, *({"delta": {"content": word}} for word in self.words)]
        return [{"text": word} for word in self.words]

    async def stream(self, request: web.Request, body: dict[str, Any], fault: int | str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
        head = {"id": "x", "object": kind, "created": 1, "model": body["model"]}

        async def say(chunk: dict[str, Any]) -> None:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        try:
            for number, delta in enumerate(self.deltas(request.path, body)):
                await say({**head, "choices": [{"index": 0, "finish_reason": None, **delta}]})
                if number == 1 and fault == "cut":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if number == 1 and fault == "late":
                    await say({"error": {"message": "out of memory", "code": 500}})
                    return response
                if self.gate and number == 1:
                    await self.gate.wait()
            finish = "tool_calls" if body.get("tools") else "stop"
            end = {"text": ""} if "prompt" in body else {"delta": {}}
            await say({**head, "choices": [{"index": 0, "finish_reason": finish, **end}]})
            if (body.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
                await say({**head, "choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
            if fault == "lingers":
                await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            self.left.set()
            raise
        except ConnectionResetError:
            self.left.set()
        return response


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the signals are pytest's


@dataclass
class World:
    """The gateway's address and everything around it that a test looks at or changes."""

    url: str
    peer: ModelServer
    publisher: MemoryPublisher
    routes: RoutingTables
    app: Gateway
    loop: asyncio.AbstractEventLoop

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

    def hold(self, only: str | None = None) -> Callable[[], object]:
        """Make the model server wait, with ``only`` one model of it; returns what lets it go on."""
        gate = asyncio.Event()
        if only:
            self.peer.faults[only] = "held"
        self.peer.gate = gate
        return lambda: self.loop.call_soon_threadsafe(gate.set)


Serve = Callable[..., World]


@contextmanager
def serving() -> Iterator[Serve]:
    """Start gateways with arguments of the caller's own; all stop at the end."""
    running: list[tuple[threading.Thread, Callable[[], None]]] = []

    def start(peer: ModelServer | None = None, upstreams: list[str] | None = None, **arguments: Any) -> World:
        peer = peer or ModelServer()
        started = threading.Event()
        worlds: list[World] = []
        servers: list[_Server] = []

        http = arguments.pop("http", "auto")

        async def main() -> None:
            runner = web.AppRunner(peer.app(), handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            peer_port = site._server.sockets[0].getsockname()[1]
            publisher = arguments.pop("publisher", None) or MemoryPublisher()
            routes = RoutingTables()
            app = create_app(
                arguments.pop("tasks", {"support": TaskPolicy(system_prompt="Be brief."), "bare": TaskPolicy()}),
                BASE_MODEL,
                [*(upstreams or []), f"http://127.0.0.1:{peer_port}"],
                publisher,
                routes,
                **({"poll_s": 0.1} | arguments),
            )
            listener = socket.create_server(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            server = _Server(
                uvicorn.Config(app, http=http, lifespan="on", log_level="warning", timeout_graceful_shutdown=2)
            )
            servers.append(server)
            loop = asyncio.get_running_loop()
            worlds.append(World(f"http://127.0.0.1:{port}", peer, publisher, routes, app, loop))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells by a flag only
                await asyncio.sleep(0.005)
            started.set()
            await task
            await runner.cleanup()

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert started.wait(PATIENCE_S)

        def stop() -> None:
            servers[0].should_exit = True

        running.append((thread, stop))
        return worlds[0]

    try:
        yield start
    finally:
        for thread, stop in running:
            stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start gateways with arguments of the test's own."""
    with serving() as start:
        yield start


@pytest.fixture
def world(serve: Serve) -> World:
    """A gateway with the tasks ``support`` (with a system prompt) and ``bare``."""
    return serve()


@pytest.fixture(scope="module")
def refusing() -> Iterator[World]:
    """One gateway for all the tests of a module whose requests are refused and leave nothing behind."""
    with serving() as start:
        yield start()

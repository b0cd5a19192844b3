"""A gateway under uvicorn and a model server that speaks OpenAI's protocol, both over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from ratchet.services.gateway.app import Gateway
from ratchet.services.gateway.assemble import create_app
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
    ``garbage`` (200 and no JSON), ``cut`` (a stream that breaks off after its first word) or
    ``late`` (an error event after the first word). A list of them is one for each request, then none.
    """

    models: list[str] = field(default_factory=lambda: [BASE_MODEL, STABLE, CANDIDATE])
    faults: dict[str, int | str | list[int | str]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    words: tuple[str, ...] = ("All", " is", " well")
    gate: asyncio.Event | None = None
    """Set: every answer after a stream's first word waits for it."""
    url: str = ""
    away: bool = False
    """It does not even list its models."""
    left: threading.Event = field(default_factory=threading.Event)
    """A client hung up on a stream."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_post("/v1/completions", self.complete)
        return app

    async def list_models(self, request: web.Request) -> web.Response:
        if self.away:
            return web.json_response({}, status=503)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        fault = self.faults.get(body["model"])
        if isinstance(fault, list):
            fault = fault.pop(0) if fault else None
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
        said = logprobs(self.words) if body.get("logprobs") else None
        choices = [{"index": i, "finish_reason": finish, "logprobs": said, **part} for i in range(body.get("n") or 1)]
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return {**head, "choices": choices, "usage": usage}

    def deltas(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if body.get("tools"):
            first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
            parts = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"order"', ": 7}")]
            return [{"delta": {"tool_calls": [part]}} for part in (first, *parts)]
        if path.endswith("chat/completions"):
            said = [{"delta": {"content": word}} for word in self.words]
            if body.get("logprobs"):
                said = [{**one, "logprobs": logprobs([word])} for one, word in zip(said, self.words, strict=True)]
            return [{"delta": {"role": "assistant"}}, *said]
        return [{"text": word} for word in self.words]

    async def stream(self, request: web.Request, body: dict[str, Any], fault: int | str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
        head = {"id": "x", "object": kind, "created": 1, "model": body["model"]}

        async def say(chunk: dict[str, Any]) -> None:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        try:
            wanted = range(body.get("n") or 1)
            for number, delta in enumerate(self.deltas(request.path, body)):
                for index in wanted:
                    await say({**head, "choices": [{"index": index, "finish_reason": None, **delta}]})
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
            for index in wanted:
                await say({**head, "choices": [{"index": index, "finish_reason": finish, **end}]})
            if (body.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
                await say({**head, "choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
        except asyncio.CancelledError:
            self.left.set()
            raise
        except ConnectionResetError:
            self.left.set()
        return response


def logprobs(words: Sequence[str]) -> dict[str, Any]:
    """What a chat's ``logprobs`` looks like."""
    return {"content": [{"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []} for word in words]}


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
        """Wait until ``count`` events of a kind are published (they come after the response) and return them."""
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

    def hold(self, only: str | None = None, server: ModelServer | None = None) -> Callable[[], object]:
        """Make a model server (this world's peer) wait, with ``only`` one model of it; returns what lets it go on."""
        gate, server = asyncio.Event(), server or self.peer
        if only:
            server.faults[only] = "held"
        server.gate = gate
        return lambda: self.loop.call_soon_threadsafe(gate.set)


Serve = Callable[..., World]


@contextmanager
def serving() -> Iterator[Serve]:
    """Start gateways with arguments of the caller's own; all stop at the end.

    ``others`` are more model servers beside ``peer``; ``place`` makes the placement of their addresses.
    """
    running: list[tuple[threading.Thread, Callable[[], None]]] = []

    def start(
        peer: ModelServer | None = None,
        upstreams: list[str] | None = None,
        others: Sequence[ModelServer] = (),
        **arguments: Any,
    ) -> World:
        peer = peer or ModelServer()
        started = threading.Event()
        worlds: list[World] = []
        servers: list[_Server] = []

        http = arguments.pop("http", "auto")

        async def main() -> None:
            runners = []
            for server in (*others, peer):
                runners.append(web.AppRunner(server.app(), handler_cancellation=True, shutdown_timeout=0.1))
                await runners[-1].setup()
                site = web.TCPSite(runners[-1], "127.0.0.1", 0)
                await site.start()
                assert site._server is not None
                server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
            urls = [*(upstreams or []), *(server.url for server in (*others, peer))]
            if place := arguments.pop("place", None):
                arguments["placement"] = place(tuple(urls))
            publisher = arguments.pop("publisher", None) or MemoryPublisher()
            routes = RoutingTables()
            app = create_app(
                arguments.pop("tasks", {"support": TaskPolicy(system_prompt="Be brief."), "bare": TaskPolicy()}),
                BASE_MODEL,
                urls,
                publisher,
                routes,
                **({"poll_s": 0.1} | arguments),
            )
            listener = socket.create_server(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            gateway = _Server(
                uvicorn.Config(app, http=http, lifespan="on", log_level="warning", timeout_graceful_shutdown=2)
            )
            servers.append(gateway)
            loop = asyncio.get_running_loop()
            worlds.append(World(f"http://127.0.0.1:{port}", peer, publisher, routes, app, loop))
            task = asyncio.create_task(gateway.serve(sockets=[listener]))
            while not gateway.started and not task.done():  # noqa: ASYNC110 - uvicorn tells by a flag only
                await asyncio.sleep(0.005)
            started.set()
            await task
            for runner in runners:
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


@pytest.fixture
def model_server() -> type[ModelServer]:
    """Makes further model servers, for ``others``."""
    return ModelServer

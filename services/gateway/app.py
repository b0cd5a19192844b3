"""The gateway: one raw ASGI app, from paths to the parts that answer them.

No framework: a dictionary of paths is all the routing it needs, and every layer on this path is
paid for by every request of every user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from ratchet.schemas.ids import ADAPTER_NAME
from ratchet.schemas.keys import KeyScope
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.asks import CHAT, COMPLETIONS, read_ask
from ratchet.services.gateway.door import Door
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.errors import Refused, model_not_found
from ratchet.services.gateway.events import take_events
from ratchet.services.gateway.feedback import FeedbackDesk
from ratchet.services.gateway.http import (
    Gone,
    Headers,
    Receive,
    Scope,
    Send,
    json_object,
    read_body,
    send_bytes,
    send_json,
)
from ratchet.services.gateway.metrics import CONTENT_TYPE, Metrics
from ratchet.services.gateway.mirror import Mirror
from ratchet.services.gateway.pools import Servers
from ratchet.services.gateway.presence import Presence
from ratchet.services.gateway.proxy import Proxy
from ratchet.services.gateway.ready import Readiness
from ratchet.services.gateway.recent import Origins
from ratchet.services.gateway.routes import RoutingTables
from ratchet.services.gateway.traces import TraceDesk
from ratchet.services.rules.admission import ANYONE, Caller
from ratchet.services.rules.routing import choose, sticky_key

Handler = Callable[[Scope, Caller, Receive, Send], Awaitable[int]]
_MODELS = "/v1/models"
_FLUSH_S = 10.0
_DELIVER_S = 5.0
_MIRRORS_S = 5.0


class Gateway:
    """The ASGI app; make it with `create_app`."""

    def __init__(
        self,
        tasks: Mapping[str, TaskPolicy],
        routes: RoutingTables,
        upstreams: Servers,
        emitter: Emitter,
        mirror: Mirror,
        proxy: Proxy,
        feedback: FeedbackDesk,
        traces: TraceDesk,
        metrics: Metrics,
        origins: Origins,
        ready: Readiness,
        door: Door,
        presence: Presence | None,
        *,
        new_id: Callable[[], str],
        max_body_bytes: int,
        body_timeout_s: float,
        started: int,
    ) -> None:
        """Take the parts; without a ``presence`` it says nothing of itself."""
        self._tasks = tasks
        self._routes = routes
        self._upstreams = upstreams
        self._emitter = emitter
        self._mirror = mirror
        self._proxy = proxy
        self._feedback = feedback
        self._traces = traces
        self._metrics = metrics
        self._origins = origins
        self._ready = ready
        self._door = door
        self._presence = presence
        self._new_id = new_id
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._started = started
        # path → method, the scope that a key needs (None: no key is needed), handler
        self._handlers: dict[str, tuple[str, KeyScope | None, Handler]] = {
            CHAT: ("POST", "infer", self._infer),
            COMPLETIONS: ("POST", "infer", self._infer),
            _MODELS: ("GET", "infer", self._models),
            "/v1/feedback": ("POST", "feedback", self._take_feedback),
            "/v1/events": ("POST", "ingest", self._take_events),
            "/v1/traces": ("POST", "ingest", self._take_traces),
            "/healthz": ("GET", None, self._healthz),
            "/readyz": ("GET", None, self._readyz),
            # Behind a proxy every listener is on loopback, so where it listens opens nothing.
            "/metrics": ("GET", "admin", self._exposition),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or run the app's life span."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"scope {scope['type']!r}: the gateway speaks HTTP")
        path: str = scope["path"]
        found = self._handlers.get(path)
        if found is None and path.startswith(_MODELS + "/"):
            found = ("GET", "infer", self._model)
        try:
            if found is None:
                raise Refused(404, f"{path}: no such path", code="not_found")
            method, needs, handler = found
            if scope["method"] != method:
                allow = [(b"allow", method.encode())]
                raise Refused(405, f"{path}: allowed: {method}", code="method_not_allowed", headers=allow)
            caller = self._door.admit(scope["headers"], needs) if needs else ANYONE
            code = await handler(scope, caller, receive, send)
        except Refused as refused:
            code = refused.status
            await send_json(send, code, refused.body(), refused.headers)
        except Gone:
            code = 499
        self._metrics.requests_of(path if path in self._handlers else "other", str(code)).inc()

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        return await read_body(headers, receive, self._max_body_bytes, self._body_timeout_s)

    async def _infer(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        headers: Headers = dict(scope["headers"])
        raw = await self._body(headers, receive)
        ask = read_ask(scope["path"], headers, json_object(raw), len(raw), self._tasks, caller.tenant)
        id = self._new_id()
        key = sticky_key(ask.user, ask.conversation_id, id)
        route = choose(self._routes.get(ask.task), key=key, inference_id=id, pinned=ask.pinned)
        return await self._proxy.answer(ask, route, id, receive, send)

    async def _take_feedback(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        value = json_object(await self._body(dict(scope["headers"]), receive))
        await send_json(send, 202, {"feedback_id": self._feedback.take(value, caller)})
        return 202

    async def _take_events(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        raw = await self._body(dict(scope["headers"]), receive)
        receipt = take_events(raw, self._emitter, self._origins, caller)
        await send_json(send, receipt.status, receipt.body())
        return receipt.status

    async def _take_traces(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        headers: Headers = dict(scope["headers"])
        reply = await self._traces.take(headers, lambda: self._body(headers, receive), caller)
        await send_bytes(send, reply.status, reply.body, reply.content_type)
        return reply.status

    async def _names(self) -> list[str]:
        """The declared tasks, then the adapters of them that some replica has in memory."""
        await self._upstreams.refresh()
        resident = [name for name in self._upstreams.models() if _task_of(name) in self._tasks]
        return [*sorted(self._tasks), *sorted(resident)]

    def _card(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "ratchet"}

    async def _models(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        cards = [self._card(name) for name in await self._names()]
        await send_json(send, 200, {"object": "list", "data": cards})
        return 200

    async def _model(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        name = scope["path"].removeprefix(_MODELS + "/")
        if name not in await self._names():
            raise model_not_found(name)
        await send_json(send, 200, self._card(name))
        return 200

    async def _healthz(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        await send_json(send, 200, {"status": "ok"})
        return 200

    async def _readyz(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        missing = self._ready.missing()
        code = 503 if missing else 200
        status = "not ready" if missing else "ready"
        known = {"missing": missing, "away": self._ready.away, "silent_s": self._ready.silent_s()}
        await send_json(send, code, {"status": status, **known})
        return code

    async def _exposition(self, scope: Scope, caller: Caller, receive: Receive, send: Send) -> int:
        await send_bytes(send, 200, self._metrics.exposition(), CONTENT_TYPE)
        return 200

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start with the server; at the end, after the last answer, let mirrors finish and the events out."""
        await receive()
        await self._upstreams.start()
        chores = [asyncio.create_task(chore) for chore in (self._deliver(), self._door.follow(), self._ready.follow())]
        if self._presence:
            chores.append(asyncio.create_task(self._presence.follow()))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for chore in chores:
            chore.cancel()
        await self._mirror.close(_MIRRORS_S)
        await self._upstreams.close()
        if self._presence:
            self._presence.say("left")
        await asyncio.to_thread(self._emitter.flush, _FLUSH_S)
        await send({"type": "lifespan.shutdown.complete"})

    async def _deliver(self) -> None:
        """Send undelivered events again every few seconds, and keep their number in sight."""
        while True:
            await asyncio.sleep(_DELIVER_S)
            await asyncio.to_thread(self._emitter.waiting)


def _task_of(name: str) -> str | None:
    match = ADAPTER_NAME.match(name)
    return match["task"] if match else None

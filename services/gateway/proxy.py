"""An inference request on its way: try the route's legs, pass the answer on, tell of it before its end.

Before the first byte a failed leg falls back to the next (candidate → stable → base → 502);
after it the answer cannot be taken back, so a broken stream ends with an error event in it.
Each failed attempt is an event of its own with an id of its own; the answer's event has the id
that the client was told, and is handed over before the answer's last bytes are: an answer that a
client saw whole is logged, whenever this process is killed. A request that the model server calls
wrong (400, 413, 422) is the client's fault: passed on with its status, and no event, since no
adapter is to blame.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

from ratchet.schemas.errors import ModelError
from ratchet.services.gateway.answers import Answer, StreamedAnswer, read_answer
from ratchet.services.gateway.asks import Ask
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.errors import error_body, model_not_found
from ratchet.services.gateway.http import Line, Pairs, Receive, Send, send_bytes, send_json
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.mirror import Mirror
from ratchet.services.gateway.pools import Servers
from ratchet.services.gateway.presence import Traffic
from ratchet.services.gateway.recent import Origins
from ratchet.services.gateway.record import NOTHING, Attempt, Sources, Status, inference_event
from ratchet.services.gateway.upstream import UpstreamFailure, UpstreamRefusal
from ratchet.services.rules.routing import Leg, Route

_STREAM = b"text/event-stream; charset=utf-8"


@dataclass(slots=True)
class Call:
    """One request under way: what was asked, where it goes, and the line to the client."""

    ask: Ask
    route: Route
    id: str
    line: Line
    send: Send
    started: bool = False
    """The answer's first byte has been sent: no fallback from here on."""
    answer: Answer = NOTHING
    """What has come so far, for the event of a stream that is cut off."""
    failed: list[str] = field(default_factory=list)
    """Adapters that were tried before."""

    def headers(self, leg: Leg) -> Pairs:
        """The headers of every inference response."""
        return [
            (b"x-ratchet-inference-id", self.id.encode()),
            (b"x-ratchet-adapter", leg.adapter.encode()),
            (b"x-ratchet-stage", leg.stage.encode()),
        ]


class Proxy:
    """Answers inference requests from the model servers."""

    def __init__(
        self,
        upstreams: Servers,
        emitter: Emitter,
        mirror: Mirror,
        metrics: Metrics,
        sources: Sources,
        origins: Origins,
        traffic: Traffic,
    ) -> None:
        """Take the parts; ``origins`` remembers where an inference or a conversation came from, ``traffic`` counts."""
        self._upstreams = upstreams
        self._emitter = emitter
        self._mirror = mirror
        self._metrics = metrics
        self._sources = sources
        self._origins = origins
        self._traffic = traffic

    async def answer(self, ask: Ask, route: Route, id: str, receive: Receive, send: Send) -> int:
        """Answer one request; returns the status that the client was told (499 where it hung up)."""
        async with Line(receive) as line:
            call = Call(ask, route, id, line, send)
            # Before the first byte leaves: a client may answer with feedback while the stream still runs.
            self._origins.put(id, ask.conversation_id, ask.tenant, ask.task)
            return await self._legs(call)
        return 499

    async def _legs(self, call: Call) -> int:
        last: UpstreamFailure | None = None
        for position, leg in enumerate(call.route.legs, start=1):
            attempt = Attempt(self._sources, leg)
            try:
                await self._try(call, attempt)
            except UpstreamRefusal as refusal:
                call.line.complete = True
                await send_bytes(call.send, refusal.code, refusal.body, extra=call.headers(leg))
                return refusal.code
            except UpstreamFailure as failure:
                last = failure
                if call.route.legs[0].stage == "pinned" and failure.code == 404:
                    return await self._no_such_adapter(call, leg)
                final = call.started or position == len(call.route.legs)
                tags = None if final else {"answered_by": call.id}
                self._tell(
                    call,
                    attempt,
                    failure.kind,
                    id=call.id if final else self._sources.new_id(),
                    answer=call.answer,
                    error=str(failure),
                    tags=tags,
                )
                if call.started:
                    self._copy(call)
                    await self._break_off(call, str(failure))
                    return 200
                call.failed.append(leg.adapter)
            except asyncio.CancelledError:
                if not call.line.complete:  # else it was told of
                    why = "the client hung up" if call.line.hung_up else "the gateway was stopped"
                    self._tell(call, attempt, "cancelled", id=call.id, answer=call.answer, error=why)
                raise
            else:
                self._copy(call)
                return 200
        self._copy(call)
        assert last is not None, "a route has at least one leg"
        call.line.complete = True
        message = f"No model answered ({', '.join(call.failed)}): {last}"
        body = error_body(502, message[:1000], code="upstream_failed")
        await send_json(call.send, 502, body, call.headers(call.route.legs[-1]))
        return 502

    def _copy(self, call: Call) -> None:
        """Mirror a request that was answered or failed: were failed ones left out, only copies would ever fail."""
        if call.route.mirror and call.route.rollout_id:
            self._mirror.send(call.ask, call.route.mirror, call.id, call.route.rollout_id)

    async def _try(self, call: Call, attempt: Attempt) -> None:
        """Get one leg's answer to the client.

        Raises:
            UpstreamFailure: no answer, or (with ``call.started``) half of one.
            UpstreamRefusal: the request is wrong.
        """
        call.answer = NOTHING
        adapter = attempt.leg.adapter
        body = call.ask.body | {"model": self._sources.served_name(adapter)}
        self._traffic.begin(adapter, attempt.at if attempt.leg.stage != "pinned" else None)
        try:
            async with self._upstreams.open(call.ask.path, body) as response:
                if call.ask.stream:
                    await self._pass_on(call, attempt, response.chunks(), response.content_type)
                    return
                raw = await response.read()
                call.answer = read_answer(raw)
        except (UpstreamFailure, UpstreamRefusal):
            if call.line.complete:
                return  # the client has everything: how the connection to the model server ends is of no interest
            raise
        except ModelError as error:
            raise UpstreamFailure(str(error)) from error
        finally:
            self._traffic.end(adapter)
        self._answered(call, attempt)
        await send_bytes(call.send, 200, raw, extra=call.headers(attempt.leg))

    async def _pass_on(self, call: Call, attempt: Attempt, chunks: Any, content_type: str) -> None:
        """Pass a stream on as it comes."""
        if content_type != "text/event-stream":
            raise UpstreamFailure(f"asked for a stream, the model server answered {content_type}")
        stream = StreamedAnswer(keep_usage=call.ask.wants_usage)
        try:
            async for chunk in chunks:
                if call.line.complete:
                    continue  # read to its end, so that the connection can be used again
                events = stream.feed(chunk)
                if stream.first_token:
                    attempt.token()
                if stream.over and not stream.error:
                    # Clients stop reading at [DONE]; the server's end of the stream may come much later.
                    call.answer = stream.answer()
                    await self._finish(call, attempt, events)
                elif events:
                    await self._start(call, attempt)
                    await call.send({"type": "http.response.body", "body": events, "more_body": True})
                if stream.error:
                    break
            if stream.error or not stream.done:
                raise UpstreamFailure(stream.error or "the model server's stream broke off")
        finally:
            call.answer = stream.answer()
        if not call.line.complete:
            await self._finish(call, attempt, b"")

    async def _finish(self, call: Call, attempt: Attempt, events: bytes) -> None:
        """Send a stream's last events and its end."""
        await self._start(call, attempt)
        self._answered(call, attempt)
        await call.send({"type": "http.response.body", "body": events, "more_body": False})

    def _answered(self, call: Call, attempt: Attempt) -> None:
        """Tell of the answer just before its last bytes are sent; from here on nothing takes that back."""
        call.line.complete = True
        tags = {"fallback_from": ",".join(call.failed)} if call.failed else None
        self._tell(call, attempt, "ok", id=call.id, answer=call.answer, tags=tags)
        if call.failed:
            self._metrics.fallbacks.labels(call.ask.task, call.failed[0]).inc()

    async def _start(self, call: Call, attempt: Attempt) -> None:
        if call.started:
            return
        call.started = True
        headers = [(b"content-type", _STREAM), (b"cache-control", b"no-cache"), *call.headers(attempt.leg)]
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _break_off(self, call: Call, message: str) -> None:
        """End a stream that cannot be finished: an error event, as OpenAI's clients understand it, and no [DONE]."""
        call.line.complete = True
        event = b"data: " + orjson.dumps(error_body(502, message, code="upstream_failed")) + b"\n\n"
        await call.send({"type": "http.response.body", "body": event, "more_body": False})

    async def _no_such_adapter(self, call: Call, leg: Leg) -> int:
        call.line.complete = True
        refused = model_not_found(leg.adapter)
        await send_json(call.send, 404, refused.body(), call.headers(leg))
        return 404

    def _tell(
        self,
        call: Call,
        attempt: Attempt,
        status: Status,
        *,
        id: str,
        answer: Answer,
        error: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Publish the event of one attempt and count it."""
        event = inference_event(
            self._sources, call.ask, call.route, attempt, id=id, status=status, answer=answer, error=error, tags=tags
        )
        self._emitter.emit(event)
        leg = attempt.leg
        if status in ("error", "timeout"):
            self._metrics.errors.labels(leg.adapter, leg.stage, status).inc()
        elif status == "ok":
            self._metrics.latency_of(leg.adapter, leg.stage).observe(event.latency_ms / 1000)
            if attempt.ttft_ms is not None:
                self._metrics.ttft.labels(leg.adapter, leg.stage).observe(attempt.ttft_ms / 1000)

"""What `bench_gateway` puts around the gateway: an instant model server, a bare pass-through, a load.

Run by it as ``python gateway_parts.py upstream PORT``, ``bare PORT UPSTREAM [BOOTSTRAP]`` and
``load URL CONNECTIONS SECONDS``; the load prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import orjson

QUESTION = {
    "model": "bench",
    "messages": [{"role": "user", "content": "My parcel for order 4711-2231 has not come, and I asked twice. " * 8}],
    "max_tokens": 48,
    "temperature": 0,
}
ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": '{"customer": "Ann", "order": "4711-2231"} ' * 5},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 130, "completion_tokens": 60, "total_tokens": 190},
    }
)
MODELS = orjson.dumps({"object": "list", "data": [{"id": "bench", "object": "model"}]})


class Upstream(asyncio.Protocol):
    """An OpenAI endpoint that answers at once and always the same; requests come whole or in pieces."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: Any = transport
        self._held = b""

    def answer(self, head: bytes, body: bytes) -> bytes:
        """What a request is answered."""
        return MODELS if head.startswith(b"get ") else ANSWER

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
            whole = end + 4 + length
            if len(self._held) < whole:
                return
            body = self.answer(head, self._held[end + 4 : whole])
            self._held = self._held[whole:]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )


async def upstream(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


def bare(port: int, upstream_url: str, bootstrap: str | None) -> None:
    """A raw ASGI pass-through; with ``bootstrap`` it logs one event of the same fields to Kafka for each request."""
    import aiohttp
    import uvicorn

    from ratchet.infra.clock import new_id, now
    from ratchet.infra.kafka.publisher import KafkaPublisher

    publisher = KafkaPublisher(bootstrap, False, "bench-bare") if bootstrap else None
    session: aiohttp.ClientSession | None = None

    def log(body: bytes, raw: bytes, latency_ms: float) -> None:
        assert publisher is not None
        asked, answered, id = orjson.loads(body), orjson.loads(raw), new_id()
        choice, usage = answered["choices"][0], answered["usage"]
        event = {
            "id": id,
            "at": now().isoformat(),
            "schema": "inference.v1",
            "task": "bench",
            "tenant": "default",
            "adapter": "base",
            "base_model": "bench",
            "stage": "stable",
            "request": {"messages": asked["messages"], "params": {"max_tokens": 48, "temperature": 0}},
            "response": {"content": choice["message"]["content"], "finish_reason": "stop"},
            "status": "ok",
            "latency_ms": latency_ms,
            "prompt_tokens": usage["prompt_tokens"],
            "completion_tokens": usage["completion_tokens"],
            "stream": False,
            "source": "gateway",
            "tags": {},
        }
        publisher.send("ratchet.inference", id.encode(), orjson.dumps(event))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if scope["type"] != "http":
            return
        if session is None:
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        body, more, begun = b"", True, time.perf_counter()
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        kind = {"content-type": "application/json"}
        async with session.request(scope["method"], upstream_url + scope["path"], data=body, headers=kind) as response:
            raw = await response.read()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})
        if publisher is not None and body:
            log(body, raw, (time.perf_counter() - begun) * 1000)

    config = uvicorn.Config(
        app, port=port, loop="uvloop", http="httptools", lifespan="off", log_level="error", access_log=False
    )
    try:
        uvicorn.Server(config).run()
    finally:
        if publisher is not None:
            publisher.close()


class Caller(asyncio.Protocol):
    """One connection that sends the next request when the last answer is whole, and notes how long each took."""

    def __init__(self, request: bytes, until: float, waits: list[float], done: asyncio.Future[None]) -> None:
        """Know what to send, until when, and where waits are noted."""
        self._request, self._until, self._waits, self._done = request, until, waits, done
        self._held, self._missing, self.failed = b"", -1, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport: Any = transport
        self._next()

    def _next(self) -> None:
        self._held, self._missing, self._sent = b"", -1, time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; a whole answer ends the wait."""
        if self._missing < 0:
            self._held += data
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._held[:end].lower()
            self.failed += not head.startswith(b"http/1.1 200")
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            self._missing = length - (len(self._held) - end - 4)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            now = time.perf_counter()
            self._waits.append(now - self._sent)
            if now >= self._until:
                self._transport.close()
            else:
                self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """This connection's load is over."""
        if not self._done.done():
            self._done.set_result(None)


async def load(url: str, connections: int, seconds: float) -> dict[str, Any]:
    """Ask over ``connections`` connections for ``seconds`` seconds; counts and latencies in milliseconds."""
    parts, body = urlsplit(url), orjson.dumps(QUESTION)
    request = (
        b"POST %b HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nauthorization: Bearer none\r\n"
        b"content-length: %d\r\n\r\n%b" % (parts.path.encode(), len(body), body)
    )
    loop, waits, callers = asyncio.get_running_loop(), [0.0][:0], []
    begun = time.perf_counter()
    for _ in range(connections):
        caller = Caller(request, begun + seconds, waits, loop.create_future())
        callers.append(caller)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", parts.port)  # type: ignore[misc]
    await asyncio.gather(*(caller._done for caller in callers))
    elapsed = time.perf_counter() - begun
    waits.sort()
    return {
        "requests": len(waits),
        "failed": sum(caller.failed for caller in callers),
        "rps": len(waits) / elapsed,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
    }


def main(arguments: list[str]) -> None:
    """Run one part."""
    import uvloop

    match arguments:
        case ["upstream", port]:
            uvloop.run(upstream(int(port)))
        case ["bare", port, upstream_url, *bootstrap]:
            bare(int(port), upstream_url, bootstrap[0] if bootstrap else None)
        case ["load", url, connections, seconds]:
            print(json.dumps(uvloop.run(load(url, int(connections), float(seconds)))))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

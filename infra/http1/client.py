"""A lean HTTP/1.1 client for the model servers: kept-alive connections, answers as they come, nothing else.

aiohttp's client took a third of what a request costs the gateway (docs/decisions/019). No
redirects, cookies, proxies or decompression.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from httptools import HttpParserError, HttpParserUpgrade

from ratchet.infra.http1.reply import Reply

_IDLE_S = 15.0


class ConnectTimeout(TimeoutError):
    """No connection within the limit: nothing was sent."""


class Stale(ConnectionError):
    """A kept-alive connection was closed just as it was used: the request is worth another try at once."""


class _Connection(asyncio.Protocol):
    """One connection, which carries one request after the other."""

    def __init__(self, client: HttpClient, origin: _Origin) -> None:
        self._client = client
        self._origin = origin
        self._transport: Any = None
        self._reply: Reply | None = None
        self._held_back = False
        self.used = 0
        """Requests sent so far."""
        self.since = 0.0
        """The loop's time when bytes last moved."""
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._client.open.add(self)

    async def send(self, request: bytes) -> Reply:
        """Send one request and wait for the answer's head."""
        reply = self._reply = Reply(self)
        self.used += 1
        self.since = self._client.time()
        self._transport.write(request)
        try:
            while not reply.status:
                await reply.changed()
        except BaseException:
            self.finish(reply)
            raise
        return reply

    def data_received(self, data: bytes) -> None:
        self.since = self._client.time()
        if self._reply is None:
            self._transport.abort()  # bytes that nobody asked for
            return
        try:
            self._reply.feed(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.fail(ConnectionError(f"what came is not HTTP/1: {error!r}"[:200]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.open.discard(self)
        if self._reply is None:
            if self in self._origin.idle:
                self._origin.idle.remove(self)
            return
        if exc is None:
            self._reply.end_of_stream()
        begun = self._reply.status or not self.used > 1
        ended = ConnectionError(f"the connection ended before the answer did{f': {exc!r}' if exc else ''}")
        self.fail(ended if begun else Stale(str(ended)))

    def fail(self, error: Exception) -> None:
        """End the request under way with an error, unless it has one or its answer is whole."""
        if self.error is None:
            self.error = error
            self._transport.abort()
        if self._reply is not None:
            self._reply.wake()

    def hold_back(self) -> None:
        """Read no more for now."""
        if not self._held_back:
            self._held_back = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._held_back:
            self._held_back = False
            self.since = self._client.time()
            self._transport.resume_reading()

    def look(self, now: float, silence_s: float) -> None:
        """End a request whose server is silent for too long; close what nobody has used for a while."""
        waited = now - self.since
        if self._reply is None:
            if waited > _IDLE_S:
                self._transport.close()
        elif waited > silence_s and not self._held_back:
            self.fail(TimeoutError(f"no bytes for {silence_s:g} s"))

    def finish(self, reply: Reply) -> None:
        """Take the next request, or end."""
        if self._reply is not reply:
            return
        self._reply = None
        if reply.whole and reply.keep and self.error is None and not self._transport.is_closing():
            self.go_on()
            self._origin.idle.append(self)
        else:
            self._transport.abort()


class _Origin:
    """A server's address, the head of each request to it, and its idle connections, the freshest last."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address of a model server; allowed: http://host:port or https://host:port")
        self.host = parts.hostname
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.idle: list[_Connection] = []
        self._prefix = parts.path.rstrip("/")
        lines = {"host": parts.netloc.rpartition("@")[2]} | dict(headers)
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            lines["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._heads: dict[tuple[str, str], bytes] = {}

    def head(self, method: str, path: str) -> bytes:
        """Everything of a request that is before its length; paths are few."""
        if (head := self._heads.get((method, path))) is None:
            head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._lines}content-length: ".encode("ascii")
            self._heads[method, path] = head
        return head


class HttpClient:
    """Connections to any number of servers, as many as there are requests at once.

    Args:
        connect_s: the most seconds that a new connection may take.
        silence_s: the longest silence of a server, before and between its bytes.
        headers: sent with every request; names and values are the caller's to choose well.
    """

    def __init__(self, *, connect_s: float, silence_s: float, headers: Mapping[str, str]) -> None:
        self.open: set[_Connection] = set()
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._headers = headers
        self._origins: dict[str, _Origin] = {}
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self._look_s = min(1.0, silence_s / 10)
        self._look = loop.call_later(self._look_s, self._look_at_all)

    async def request(self, method: str, url: str, path: str, body: bytes = b"") -> Reply:
        """Send a request and wait for the head of its answer.

        Args:
            method: of HTTP.
            url: the server's address; what it has of a path goes before ``path``, a user and password become Basic.
            path: ASCII, as it goes over the wire.
            body: as it goes over the wire.

        Raises:
            ConnectTimeout: no connection in time.
            Stale: a kept-alive connection was closed as it was used.
            TimeoutError: the server was silent for too long.
            OSError: no connection, or it ended before the answer's head, or what came is not HTTP.
        """
        origin = self._origins.get(url) or self._origins.setdefault(url, _Origin(url, self._headers))
        connection = origin.idle.pop() if origin.idle else await self._connect(origin)
        try:
            return await connection.send(b"%b%d\r\n\r\n%b" % (origin.head(method, path), len(body), body))
        except Stale:
            for other in origin.idle:  # as old as this one: the next try gets a new one
                other._transport.close()
            origin.idle.clear()
            raise

    async def _connect(self, origin: _Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, origin), origin.host, origin.port, ssl=origin.tls
                )
        except TimeoutError:
            raise ConnectTimeout(f"no connection within {self._connect_s:g} s") from None
        return connection

    def _look_at_all(self) -> None:
        now = self.time()
        for connection in list(self.open):
            connection.look(now, self._silence_s)
        self._look = asyncio.get_running_loop().call_later(self._look_s, self._look_at_all)

    async def close(self) -> None:
        """Cut every connection."""
        self._look.cancel()
        for connection in list(self.open):
            connection.fail(ConnectionError("the client was closed"))
        await asyncio.sleep(0)  # for the transports to go

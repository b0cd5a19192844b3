"""One answer in HTTP/1.1 while it comes, parsed by httptools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from httptools import HttpResponseParser

_HIGH_WATER = 2**20
"""Bytes of an answer that wait for their reader before the server is held back."""


class Connection(Protocol):
    """The connection that an answer comes over, as far as the answer needs it."""

    error: Exception | None
    """Why nothing more comes."""

    def hold_back(self) -> None:
        """Read no more for now."""

    def go_on(self) -> None:
        """Read again."""

    def finish(self, reply: Reply) -> None:
        """Hear that nobody wants more of the answer."""


class Reply:
    """An answer whose status and type are known and whose body may still be on its way; close it in the end."""

    __slots__ = (
        "_connection",
        "_framed",
        "_held",
        "_parser",
        "_size",
        "_waiter",
        "content_type",
        "keep",
        "status",
        "whole",
    )

    def __init__(self, connection: Connection) -> None:
        """Begin with nothing."""
        self._connection = connection
        self._parser = HttpResponseParser(self)
        self._held: list[bytes] = []
        self._size = 0
        self._framed = False
        self._waiter: asyncio.Future[None] | None = None
        self.status = 0
        """0 until the head has come."""
        self.content_type = ""
        """Lower case, without parameters."""
        self.whole = False
        """The body's last byte has come."""
        self.keep = False
        """Then: the server keeps the connection."""

    def on_message_begin(self) -> None:
        """Refuse a second answer behind the first: nobody asked for it (called by the parser)."""
        if self.whole:
            raise ValueError("bytes behind the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note what matters of the head (called by the parser)."""
        match name.lower():
            case b"content-type":
                self.content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            case b"content-length" | b"transfer-encoding":
                self._framed = True

    def on_headers_complete(self) -> None:
        """Note the status, except an interim one (called by the parser)."""
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body (called by the parser)."""
        self._held.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        """Note the end (called by the parser)."""
        if self.status:
            self.whole = True
            self.keep = self._parser.should_keep_alive()

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection.

        Raises:
            HttpParserError, HttpParserUpgrade: this is no answer in HTTP/1.
        """
        self._parser.feed_data(data)
        if self._size > _HIGH_WATER:
            self._connection.hold_back()
        self.wake()

    def end_of_stream(self) -> None:
        """The server closed: the end of a body of unsaid length."""
        self.whole = self.whole or (self.status != 0 and not self._framed)
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for bytes or the end.

        Raises:
            TimeoutError: the server was silent for too long.
            OSError: the connection ended too early, or what came is not HTTP.
        """
        if self._connection.error is not None:
            raise self._connection.error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _take(self) -> bytes:
        held = self._held
        if not held:
            return b""
        self._held, self._size = [], 0
        self._connection.go_on()
        return held[0] if len(held) == 1 else b"".join(held)

    async def read(self) -> bytes:
        """The whole body, or what is left of it; errors as `chunks`."""
        parts = []
        while not self.whole:
            parts.append(self._take())
            await self.changed()
        parts.append(self._take())
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come.

        Raises:
            TimeoutError: the server was silent for too long.
            OSError: the connection ended too early, or what came is not HTTP.
        """
        while True:
            if chunk := self._take():
                yield chunk
            elif self.whole:
                return
            else:
                await self.changed()

    def close(self) -> None:
        """Let go: a connection whose answer is whole is used again, any other is cut; the server stops, then."""
        self._connection.finish(self)

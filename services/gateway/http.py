"""The little HTTP that the gateway needs over raw ASGI: headers, whole bodies, JSON answers, hang-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import TracebackType
from typing import Any

import orjson

from ratchet.services.gateway.errors import Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = dict[bytes, bytes]
Pairs = list[tuple[bytes, bytes]]

JSON = b"application/json"
_WATCH_AFTER_S = 0.01


class Deadline:
    """Raises TimeoutError in the block after ``limit_s`` seconds: `asyncio.timeout` at a third of its price."""

    __slots__ = ("_handle", "_late", "_limit_s", "_task")

    def __init__(self, limit_s: float) -> None:
        """Know the limit."""
        self._limit_s = limit_s
        self._late = False

    def __enter__(self) -> None:
        """Start the clock."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._handle = asyncio.get_running_loop().call_later(self._limit_s, self._stop)

    def _stop(self) -> None:
        self._late = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the clock; the cancellation that came from it, and no other, becomes a TimeoutError."""
        self._handle.cancel()
        if self._late and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error


class Gone(Exception):
    """The client hung up while it was still sending."""


def too_slow(limit_s: float) -> Refused:
    """Refuse a body that does not come to its end: 408, and the connection is closed under it."""
    message = f"body: not complete after {limit_s:g} s; send it again, or a smaller one"
    return Refused(408, message, param="body", code="request_timeout", headers=[(b"connection", b"close")])


def too_large(limit: int) -> Refused:
    """Refuse a body above the limit: 413."""
    return Refused(413, f"body: larger than {limit} bytes are not taken", param="body", code="request_too_large")


async def read_body(headers: Headers, receive: Receive, limit: int, limit_s: float) -> bytes:
    """Read the request's whole body.

    Args:
        headers: the request's headers.
        receive: ASGI's receive.
        limit: the most bytes that are taken.
        limit_s: the most seconds from the headers to the body's last byte.

    Raises:
        Refused: 413, more than ``limit`` bytes (by its Content-Length, or as they come);
            408, not complete in time.
        Gone: the client hung up.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    body = bytearray()
    try:
        with Deadline(limit_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                body += message.get("body", b"")
                if len(body) > limit:
                    raise too_large(limit)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise too_slow(limit_s) from None


def json_object(raw: bytes) -> dict[str, Any]:
    """Decode a body that must be one JSON object.

    Raises:
        Refused: 400, it is something else.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"body: not JSON: {error}", param="body", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Refused(400, "body: allowed: a JSON object", param="body", code="invalid_json")
    return value


async def send_bytes(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, extra: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with a whole body."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: object, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with JSON."""
    await send_bytes(send, status, orjson.dumps(value), JSON, extra)


class Line:
    """The line to the client: cancels the request's task when the client hangs up before its answer is complete.

    Used as ``async with Line(receive) as line``; the task sees a CancelledError at its present
    await, may note what it has, re-raises, and the block swallows it. The watch begins after a
    moment: most failures answer sooner, and so do instant model servers, which need no task for it.
    """

    def __init__(self, receive: Receive) -> None:
        """Watch ``receive``, whose body has been read."""
        self._receive = receive
        self.complete = False
        """Set just before the answer's last bytes are sent: from then on nobody is cancelled."""
        self.hung_up = False
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Line:
        """Watch from a moment later on; a hang-up before that is seen then."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._start = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)
        return self

    def _begin(self) -> None:
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.complete:
            self.hung_up = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop watching; swallow the cancellation that came from the hang-up, and no other."""
        self._start.cancel()
        if self._watch is not None:
            self._watch.cancel()
        return self.hung_up and kind is asyncio.CancelledError and self._task.uncancel() == 0

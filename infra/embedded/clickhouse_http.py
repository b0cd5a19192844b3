"""ClickHouse's HTTP interface over chDB: a raw ASGI app, as thin as clickhouse-connect allows.

The body is the query, or the data of an insert whose query is in the URL, or both in one.
Parameters are bound (``param_x``), settings come from the URL. Every statement runs on a
worker thread; the event loop only moves bytes.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import secrets
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl

from ratchet.infra.clickhouse.sql import first_word, insert_head
from ratchet.infra.embedded.clickhouse_body import INFILE_ENCODINGS, Encoder, Spool, decode, multipart
from ratchet.infra.embedded.clickhouse_engine import NO_SPACE, Engine, EngineError, Result, Statement

Message = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

# Names in the URL that speak to the transport; every other one is a setting of the engine.
_TRANSPORT = frozenset(
    {"query", "database", "default_format", "user", "password", "query_id", "quota_key", "role", "stacktrace"}
    | {"session_id", "session_timeout", "session_check", "close_session", "compress", "decompress", "buffer_size"}
    | {"wait_end_of_query", "client_protocol_version", "enable_http_compression"}
    | {"send_progress_in_http_headers", "http_headers_progress_interval_ms"}
)
_READING = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN"})
# As ClickHouse answers them. Not 429, 503 or 504: those make a client send it again.
_STATUS = {
    **dict.fromkeys((26, 27, 36, 38, 41, 42, 43, 53, 62, 69, 70, 72, 117, 271, 456, 457), 400),
    **dict.fromkeys((10, 16, 46, 47, 60, 81, 115), 404),
    **{164: 403, 159: 408, 48: 501, NO_SPACE: 507},
}
_HEAD_BYTES = 64 * 1024  # an INSERT's FORMAT clause lies within this much of a body
_WHOLE = 1 << 20  # a streamed result below this goes out in one piece, as an error still can


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    body: bytes
    status: int = 200
    headers: Headers = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    """What one request says, its body aside."""

    method: str
    url: dict[str, str]
    headers: dict[str, str]

    @property
    def query_id(self) -> str:
        """The client's query id, or nothing."""
        return self.url.get("query_id", "")

    def statement(self, text: str, form: dict[str, str]) -> Statement:
        """The statement to run, with parameters from the URL and the form."""
        values = self.url | form
        return Statement(
            text=text,
            params={k.removeprefix("param_"): v for k, v in values.items() if k.startswith("param_")},
            database=self.url.get("database") or self.headers.get("x-clickhouse-database") or "default",
            settings={k: v for k, v in self.url.items() if k not in _TRANSPORT and not k.startswith("param_")},
            default_format=self.url.get("default_format") or self.headers.get("x-clickhouse-format") or "TabSeparated",
        )


class ClickHouseHttp:
    """The ASGI app.

    Args:
        engine: whose statements it runs.
        threads: statements at once.
    """

    def __init__(self, engine: Engine, threads: int = 16) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="clickhouse")

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        url = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        ask = Ask(scope["method"], url, headers)
        if reason := _stranger(scope, headers):
            await _send(send, Reply(reason.encode(), 403))
        elif scope["path"] not in ("/", "/ping") or ask.method not in ("GET", "POST"):
            await _send(send, Reply(b"There is nothing here but /, /ping and their GET and POST.\n", 404))
        elif scope["path"] == "/ping" or (ask.method == "GET" and not url.get("query")):
            await _send(send, Reply(b"Ok.\n"))
        else:
            await self._query(ask, receive, send)

    async def _query(
        self, ask: Ask, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        body = Spool(self._engine.inserts / uuid.uuid4().hex)
        gone = threading.Event()
        watch: asyncio.Task[None] | None = None
        try:
            if not await _read(receive, body):
                return

            def emit(message: Message) -> bool:
                asyncio.run_coroutine_threadsafe(_pass(send, message), loop).result()
                return not gone.is_set()

            async def until_gone() -> None:
                await receive()  # after the body only the disconnect is left
                gone.set()

            watch = asyncio.create_task(until_gone())
            reply = await loop.run_in_executor(self._pool, self._answer, ask, body, emit)
            if reply is not None:
                await _send(send, reply)
        except OSError as error:
            await _send(send, _refusal(_from_os(error), ask))
        finally:
            if watch is not None:
                watch.cancel()
            body.remove()

    def close(self) -> None:
        """Wait for the statements that run; start none any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    # From here on: worker threads.

    def _answer(self, ask: Ask, body: Spool, emit: Callable[[Message], bool]) -> Reply | None:
        """Run the request; None when `emit` has sent the response already."""
        try:
            return self._execute(ask, body, emit)
        except EngineError as error:
            return _refusal(error, ask)
        except OSError as error:
            return _refusal(_from_os(error), ask)
        except UnicodeDecodeError as error:
            return _refusal(
                EngineError(f"Code: 62. DB::Exception: The query is not UTF-8: {error}. (SYNTAX_ERROR)"), ask
            )

    def _execute(self, ask: Ask, body: Spool, emit: Callable[[Message], bool]) -> Reply | None:
        query = ask.url.get("query", "")
        form: dict[str, str] = {}
        encoding = ask.headers.get("content-encoding", "")
        if ask.url.get("decompress") == "1" or ask.url.get("compress") == "1":
            raise EngineError("Code: 48. DB::Exception: Use Content-Encoding instead of compress=1. (NOT_IMPLEMENTED)")
        head = insert_head(query)
        if head is not None and not query[head.data_at :].strip() and encoding in INFILE_ENCODINGS:
            # the fast path: the body is the data, and ClickHouse itself unpacks it
            statement = ask.statement(head.into, form)
            result = self._engine.insert_file(statement, head.settings, head.format, body.save(), encoding)
            return self._reply(ask, result)
        chunks = decode(encoding, body.chunks())
        kind = ask.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            form = multipart(b"".join(chunks), kind)
            query, chunks = query or form.pop("query", ""), iter(())
        if query:
            chunks = chain([query.encode() + b"\n"], chunks)
        return self._text(ask, chunks, form, emit)

    def _text(
        self, ask: Ask, chunks: Iterator[bytes], form: dict[str, str], emit: Callable[[Message], bool]
    ) -> Reply | None:
        """Run a query that is in the body (or before it), with or without an insert's data after it."""
        window = bytearray()
        for chunk in chunks:
            window += chunk
            if len(window) >= _HEAD_BYTES:
                break
        head = insert_head(window[:_HEAD_BYTES].decode("latin-1"))  # so that characters are bytes
        if head is not None:
            data = Spool(self._engine.inserts / uuid.uuid4().hex)
            try:
                data.write(bytes(window[head.data_at :]))
                for chunk in chunks:
                    data.write(chunk)
                into, settings = head.into.encode("latin-1").decode(), head.settings.encode("latin-1").decode()
                result = self._engine.insert_file(ask.statement(into, form), settings, head.format, data.save())
                return self._reply(ask, result)
            finally:
                data.remove()
        statement = ask.statement(b"".join((window, *chunks)).decode(), form)
        if ask.method == "GET" and first_word(statement.text) not in _READING:
            raise EngineError("Code: 164. DB::Exception: A GET request may only read: use POST. (READONLY)")
        if statement.streamable and ask.url.get("wait_end_of_query") != "1":
            return self._stream(ask, statement, emit)
        return self._reply(ask, self._engine.run(statement))

    def _stream(self, ask: Ask, statement: Statement, emit: Callable[[Message], bool]) -> Reply | None:
        blocks = self._engine.stream(statement)
        first = bytearray()
        for block in blocks:
            first += block
            if len(first) >= _WHOLE:
                break
        else:
            return self._reply(ask, Result(bytes(first), statement.format, {"result_bytes": str(len(first))}))
        encoder, headers = self._headers(ask, statement.format, {})
        tag = secrets.token_hex(8)
        headers.append((b"x-clickhouse-exception-tag", tag.encode()))
        emit({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            for block in chain([bytes(first)], blocks):
                if not emit({"type": "http.response.body", "body": encoder(block), "more_body": True}):
                    return None
        except EngineError as error:
            # the status is out already: ClickHouse ends the body with the error between two tags
            text = f"{error}\n".encode()
            last = b"__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (
                tag.encode(),
                text,
                len(text),
                tag.encode(),
            )
            emit({"type": "http.response.body", "body": encoder(last), "more_body": True})
        finally:
            blocks.close()  # type: ignore[attr-defined]  # a generator: frees the handle
        emit({"type": "http.response.body", "body": encoder.finish()})
        return None

    def _reply(self, ask: Ask, result: Result) -> Reply:
        encoder, headers = self._headers(ask, result.format, result.summary)
        return Reply(encoder(result.data) + encoder.finish() if result.data else b"", 200, headers)

    def _headers(self, ask: Ask, form: str | None, summary: dict[str, str]) -> tuple[Encoder, Headers]:
        encoder = Encoder(
            ask.headers.get("accept-encoding", "") if ask.url.get("enable_http_compression") == "1" else ""
        )
        headers = {
            "content-type": "text/plain; charset=UTF-8"
            if form in (None, "TabSeparated")
            else "application/octet-stream",
            "x-clickhouse-query-id": ask.query_id or str(uuid.uuid4()),
            "x-clickhouse-timezone": self._engine.timezone,
            "x-clickhouse-summary": json.dumps(summary),
        }
        if form is not None:
            headers["x-clickhouse-format"] = form
        if encoder.name:
            headers["content-encoding"] = encoder.name
        return encoder, [(key.encode(), value.encode()) for key, value in headers.items()]


async def _read(receive: Callable[[], Awaitable[Message]], body: Spool) -> bool:
    """Spool the request's body; False when the client left in the middle."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        body.write(message.get("body", b""))
        if not message.get("more_body"):
            return True


async def _pass(send: Callable[[Message], Awaitable[None]], message: Message) -> None:
    await send(message)


async def _send(send: Callable[[Message], Awaitable[None]], reply: Reply) -> None:
    headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _refusal(error: EngineError, ask: Ask) -> Reply:
    headers = [
        (b"content-type", b"text/plain; charset=UTF-8"),
        (b"x-clickhouse-exception-code", str(error.code).encode()),
        (b"x-clickhouse-query-id", (ask.query_id or str(uuid.uuid4())).encode()),
    ]
    return Reply(f"{error}\n".encode(), _STATUS.get(error.code, 500), headers)


def _from_os(error: OSError) -> EngineError:
    name = "NOT_ENOUGH_SPACE" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "CANNOT_WRITE_TO_FILE_DESCRIPTOR"
    code = NO_SPACE if name == "NOT_ENOUGH_SPACE" else 75
    return EngineError(f"Code: {code}. DB::Exception: Cannot store the request's body: {error.strerror}. ({name})")


def _stranger(scope: Message, headers: dict[str, str]) -> str:
    """Why a request is not from this machine's own programs; empty when it is.

    The listener is on loopback, but a web page in a browser here can reach it too: such
    requests carry an Origin, or a Host that was made to resolve to loopback.
    """
    client = scope.get("client")
    if client and not _loopback(client[0]):
        return "The embedded ClickHouse answers this machine alone.\n"
    host = headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name and name != "localhost" and not _loopback(name.strip("[]")):
        return f"The embedded ClickHouse answers to a loopback address, not to {host!r}.\n"
    return "The embedded ClickHouse does not answer web pages.\n" if "origin" in headers else ""


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False

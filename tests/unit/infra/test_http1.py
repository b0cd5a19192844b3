"""The gateway's HTTP/1.1 client against servers that say exactly the bytes that a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clock import now
from ratchet.infra.http1 import client as http1
from ratchet.infra.http1.client import ConnectTimeout, HttpClient, Stale
from ratchet.infra.http1.reply import Reply

OK = b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"
Turn = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body, as it came; empty where the client left."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something has happened."""
    for _ in range(200):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never happened")


class Served:
    """A server whose answers a test writes, and what it saw."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.connections = 0
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        """The client has gone."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                self.requests.append(await read_request(reader))
                await self._turn(number, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(
    turn: Turn, *, silence_s: float = 5.0, connect_s: float = 5.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Served, HttpClient, str]]:
    """A server, a client and the server's address."""
    served = Served(turn)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient(connect_s=connect_s, silence_s=silence_s, headers={"accept-encoding": "identity"})
    try:
        yield served, client, f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        await client.close()
        server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 2)


def says(*pieces: bytes, pause_s: float = 0.0, then: str = "") -> Turn:
    """Answer each request with these pieces; ``then`` close the connection, or abort it."""

    async def turn(_number: int, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if then == "abort":
            writer.transport.abort()
        if then:
            writer.close()
            raise ConnectionResetError

    return turn


async def test_what_is_sent_and_what_comes_back() -> None:
    """The request has the server's path, host, login and length; the answer its status, type and body."""
    async with serving(says(OK)) as (served, client, url):
        reply = await client.request("POST", url.replace("//", "//ann:s%20t@") + "/proxy/", "/v1/x", b'{"a":1}')
        assert (reply.status, reply.content_type, await reply.read()) == (200, "application/json", b"{}")
        reply.close()
    host = url.removeprefix("http://")
    assert served.requests == [
        f"POST /proxy/v1/x HTTP/1.1\r\nhost: {host}\r\naccept-encoding: identity\r\n"
        'authorization: Basic YW5uOnMgdA==\r\ncontent-length: 7\r\n\r\n{"a":1}'.encode()
    ]


async def test_a_connection_serves_one_request_after_the_other() -> None:
    """Requests in a row share a connection; two at once have two."""
    async with serving(says(OK)) as (served, client, url):
        for _ in range(3):
            reply = await client.request("GET", url, "/")
            await reply.read()
            reply.close()
        assert served.connections == 1
        first, second = await asyncio.gather(*(client.request("GET", url, "/") for _ in range(2)))
        assert served.connections == 2
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("name", "pieces", "then"),
    [
        ("chunked", (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"), ""),
        ("until the end", (b"HTTP/1.1 200 OK\r\n\r\n", b"ab", b"c"), "close"),
        ("HTTP/1.0", (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",), "close"),
        (
            "interim first",
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",),
            "",
        ),
        ("the server closes", (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",), "close"),
    ],
)
async def test_every_way_to_end_a_body(name: str, pieces: tuple[bytes, ...], then: str) -> None:
    """A body ends by its length, its last chunk or the connection's end; the next request is answered in each case."""
    async with serving(says(*pieces, then=then)) as (served, client, url):
        for count in (1, 2):
            reply = await client.request("GET", url, "/")
            assert (reply.status, await reply.read()) == (200, b"abc"), name
            reply.close()
            assert served.connections == (count if then else 1)


@given(cuts=st.lists(st.integers(1, 200), max_size=12))
def test_pieces_of_any_size_make_the_same_answer(cuts: list[int]) -> None:
    """However the network cuts an answer up, its status, type and body are the same."""
    whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Type: text/x\r\n"
    whole += b"Transfer-Encoding: chunked\r\n\r\n"
    whole += b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in (1, 30, 7)) + b"0\r\n\r\n"
    reply = Reply(NoConnection())
    for start, end in zip([0, *sorted(set(cuts))], [*sorted(set(cuts)), len(whole)], strict=True):
        if whole[start:end]:
            reply.feed(whole[start:end])
    assert (reply.status, reply.content_type, reply.whole, reply.keep) == (201, "text/x", True, True)
    assert asyncio.run(reply.read()) == b"x" * 38


class NoConnection:
    """Stands where a reply asks its connection for more or less; this one's bytes are all there."""

    error: Exception | None = None

    def hold_back(self) -> None: ...

    def go_on(self) -> None: ...

    def finish(self, reply: Reply) -> None: ...


async def test_chunks_come_as_they_are_sent() -> None:
    """A stream's bytes are handed on while the server still waits."""
    gate = asyncio.Event()

    async def turn(_number: int, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await gate.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with serving(turn) as (_, client, url):
        reply = await client.request("GET", url, "/")
        chunks = reply.chunks()
        assert await anext(chunks) == b"a"
        gate.set()
        assert [chunk async for chunk in chunks] == [b"b"]
        reply.close()


@pytest.mark.parametrize(
    ("pieces", "then", "error", "words"),
    [
        ((), "close", ConnectionError, "ended before the answer did"),
        ((b"HTTP/1.1 200 OK\r\nContent-Le",), "close", ConnectionError, "ended before the answer did"),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",),
            "close",
            ConnectionError,
            "ended before the answer did",
        ),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc",), "abort", ConnectionError, "ended"),
        ((b"SSH-2.0-OpenSSH\r\n",), "", ConnectionError, "not HTTP/1"),
        (
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",),
            "",
            ConnectionError,
            "not HTTP/1",
        ),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",), "", TimeoutError, "no bytes for 0.2 s"),
        ((), "", TimeoutError, "no bytes for 0.2 s"),
    ],
)
async def test_answers_that_are_none(pieces: tuple[bytes, ...], then: str, error: type[OSError], words: str) -> None:
    """Half an answer, none, something else than HTTP, silence: an error that says so, then a new connection."""
    async with serving(says(*pieces, then=then), silence_s=0.2) as (served, client, url):
        for _ in range(2):
            with pytest.raises(error, match=words):
                await whole(client, url)
        assert served.connections == 2
        assert not client.open


async def whole(client: HttpClient, url: str) -> bytes:
    """Ask once and read the answer."""
    reply = await client.request("GET", url, "/")
    try:
        return await reply.read()
    finally:
        reply.close()


async def test_a_slow_answer_is_no_silence() -> None:
    """The limit is on each silence: an answer may take longer than it in all."""
    pieces = (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", *(b"x" for _ in range(6)))
    async with serving(says(*pieces, pause_s=0.1), silence_s=0.4) as (_, client, url):
        assert await whole(client, url) == b"xxxxxx"


async def test_a_kept_connection_that_was_closed_is_stale_once() -> None:
    """A server that closes under the second request makes `Stale`, and no other idle connection is tried after it."""

    async def turn(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        if number <= 2:
            await writer.drain()
            await reader.readexactly(1)  # the next request has begun
            writer.transport.abort()

    async with serving(turn) as (served, client, url):
        replies = await asyncio.gather(*(client.request("GET", url, "/") for _ in range(2)))
        for reply in replies:
            await reply.read()
            reply.close()
        with pytest.raises(Stale):
            await whole(client, url)
        assert await whole(client, url) == b"{}"
        assert served.connections == 3


async def test_an_idle_connection_that_the_server_closes_is_not_used() -> None:
    """A server that closes between requests costs nothing but a new connection."""

    async def turn(_number: int, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        asyncio.get_running_loop().call_later(0.02, writer.close)

    async with serving(turn) as (served, client, url):
        for count in (1, 2, 3):
            assert await whole(client, url) == b"{}"
            assert served.connections == count
            await until(lambda: not client.open)


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that nobody uses does not stay for ever."""
    monkeypatch.setattr(http1, "_IDLE_S", 0.05)
    async with serving(says(OK), silence_s=0.5) as (served, client, url):
        await whole(client, url)
        await asyncio.wait_for(served.left.wait(), 2)
        assert await whole(client, url) == b"{}"


async def test_bytes_that_nobody_asked_for() -> None:
    """A server that speaks between requests is not listened to: the next request has a new connection."""
    async with serving(says(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")) as (served, client, url):
        for _ in range(3):
            assert await whole(client, url) == b"{}"
        assert served.connections == 3


async def test_letting_go_tells_the_server() -> None:
    """An answer that is closed or cancelled before its end ends the connection, so that a model stops generating."""
    async with serving(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")) as (
        served,
        client,
        url,
    ):
        reply = await client.request("GET", url, "/")
        reply.close()
        await asyncio.wait_for(served.left.wait(), 2)
        reply.close()
    async with serving(says()) as (served, client, url):
        waiting = asyncio.create_task(client.request("GET", url, "/"))
        await until(lambda: bool(served.requests))
        waiting.cancel()
        await asyncio.wait_for(served.left.wait(), 2)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not client.open


@pytest.mark.parametrize("ends", [False, True])
async def test_a_slow_reader_holds_the_server_back(ends: bool) -> None:
    """Of a long answer that nobody reads little is kept, however long; then all of it comes, or its end's error."""
    size, sent = 64 * 2**20, 0

    async def turn(_number: int, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(bytes(2**16))
            await writer.drain()
            sent += 2**16
        if ends:
            writer.transport.abort()

    async with serving(turn, silence_s=0.4) as (_, client, url):
        reply = await client.request("GET", url, "/")
        await asyncio.sleep(1.0)
        assert sent < size / 2
        if ends:
            next(iter(client.open))._transport.abort()
            with pytest.raises(ConnectionError):
                await reply.read()
        else:
            assert sum([len(chunk) async for chunk in reply.chunks()]) == size
        reply.close()


async def test_connecting_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """A server that takes a connection and shakes no hands is given up; an address where nobody listens says so."""
    async with serving(says(OK), connect_s=0.2) as (_, client, url):
        with pytest.raises(ConnectTimeout, match=r"no connection within 0\.2 s"):
            await whole(client, url.replace("http:", "https:"))
    async with serving(says(OK)) as (_, client, _url):
        with pytest.raises(ConnectionRefusedError):
            await whole(client, "http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "unix:///tmp/x"])
async def test_an_address_that_is_none(url: str) -> None:
    """What is no http or https address is refused with what is allowed."""
    async with serving(says(OK)) as (_, client, _url):
        with pytest.raises(ValueError, match="allowed: http://host:port"):
            await whole(client, url)


async def test_tls_checks_who_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS a server is believed if its certificate's authority is, by OpenSSL's own setting, and not otherwise."""
    certificate = self_signed(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    async with serving(says(OK), tls=server) as (_, client, url):
        with pytest.raises(ssl.SSLCertVerificationError):
            await whole(client, url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(says(OK), tls=server) as (_, client, url):
        assert await whole(client, url) == b"{}"


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key: Any = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now(), now() + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    return path

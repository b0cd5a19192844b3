"""One POST to a configured host: the address that is connected to is checked, nothing is followed, little is read."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import math
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import httpcore
from httpcore import SOCKET_OPTION

from ratchet.infra.sinks.address import refusal

READ_BYTES = 2048
"""As much of an answer is read; more tells nobody more."""
LONGEST_WAIT_S = 3600.0
_TOLD_TO_WAIT = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Outcome:
    """What a sink said.

    ``verdict``: it took the alert, may take it later, or never will. ``says`` holds nothing secret.
    """

    verdict: str
    """``taken``, ``later`` or ``refused``."""
    says: str
    wait_s: float | None = None
    """What the receiver asked for by Retry-After, at most an hour."""


@dataclass(frozen=True)
class Answer:
    """What a receiver answered: its status, the first bytes of its body, and its Retry-After."""

    status: int
    body: bytes
    retry_after: bytes | None = None


class Unreached(Exception):
    """There was no answer; the text holds nothing secret."""


class RefusedAddress(Exception):
    """A name led to an address that nothing is sent to."""


class _Guarded(httpcore.AsyncNetworkBackend):
    """Looks a name up once, checks every address, and connects to one of those: no second lookup can differ."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect; see httpcore."""
        addresses = await resolve(host, port)
        for address in addresses:
            if problem := refusal(address, self._allow_private):
                # one is enough: a name that leads outside and inside at once is how the check would be passed by
                raise RefusedAddress(f"{host} is {address}, {problem}")
        last: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    async def sleep(self, seconds: float) -> None:
        """Wait; see httpcore."""
        await asyncio.sleep(seconds)


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, numeric, each once, in the system's order.

    Raises:
        httpcore.ConnectError: there is none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"no address of {host} was found: {error}") from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))


async def post(
    url: str, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, allow_private: bool
) -> Outcome:
    """Send one JSON document and say what came of it; whatever goes wrong on the way is an outcome.

    Args:
        url: http(s)://[user:password@]host[:port][/path]; user and password become Basic.
        path: goes behind the URL's own.
        body: JSON.
        headers: besides content-type.
        timeout_s: of the whole exchange.
        allow_private: see `refusal`.
    """
    try:
        answer = await exchange(url, path, body, headers, timeout_s=timeout_s, allow_private=allow_private)
    except Unreached as error:
        return Outcome("later", str(error))
    return judged(answer.status, answer.body.decode(errors="replace"), answer.retry_after, datetime.now(UTC))


async def exchange(
    url: str, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, allow_private: bool
) -> Answer:
    """Send one JSON document and return what was answered; takes what `post` takes.

    Raises:
        Unreached: nothing was, in time, or the address is none that is connected to.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(url, path, body, headers, allow_private)
    except TimeoutError:
        raise Unreached(f"no answer within {timeout_s:g} s") from None
    except RefusedAddress as error:
        raise Unreached(f"not sent: {error}") from None
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
        raise Unreached(plain(f"{type(error).__name__}: {error}")) from None


async def _post(url: str, path: str, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Answer:
    parts = urlsplit(url)
    lines = {"content-type": "application/json", "user-agent": "ratchet"} | dict(headers)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    target = (parts.path.rstrip("/") + path if path else parts.path) or "/"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    to = httpcore.URL(
        scheme=parts.scheme.encode(),
        host=(parts.hostname or "").encode(),
        port=port,
        target=(target + (f"?{parts.query}" if parts.query else "")).encode(),
    )
    lines["host"] = parts.netloc.rpartition("@")[2]
    # httpcore's own context would trust certifi's authorities and not the machine's
    trust = ssl.create_default_context() if parts.scheme == "https" else None
    async with (
        httpcore.AsyncConnectionPool(ssl_context=trust, network_backend=_Guarded(allow_private)) as pool,
        pool.stream("POST", to, headers=[*lines.items()], content=body) as answer,
    ):
        read = bytearray()
        async for part in answer.aiter_stream():
            read += part[: READ_BYTES - len(read)]
            if len(read) >= READ_BYTES:
                break
        found = {name.lower(): value for name, value in answer.headers}
        return Answer(answer.status, bytes(read), found.get(b"retry-after"))


def judged(status: int, said: str, retry_after: bytes | None, now: datetime) -> Outcome:
    """What an answer's status means: 2xx took it, 5xx, 408, 425 and 429 ask for patience, all else refuses for good."""
    says = plain(f"{status} {said}").strip()
    if 200 <= status < 300:
        return Outcome("taken", says)
    if status >= 500 or status in _TOLD_TO_WAIT:
        return Outcome("later", says, _wait(retry_after, now))
    if 300 <= status < 400:
        says = f"{status}: redirects are not followed; set the url that it leads to"
    return Outcome("refused", says)


def _wait(retry_after: bytes | None, now: datetime) -> float | None:
    """Retry-After in seconds, a number of them or a date (RFC 9110, 10.2.3); None where it is neither."""
    if retry_after is None:
        return None
    text = retry_after.decode("latin-1").strip()
    try:
        wait_s = float(text) if text.isascii() and text.isdigit() else None
        if wait_s is None:
            at = email.utils.parsedate_to_datetime(text)
            wait_s = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), LONGEST_WAIT_S) if math.isfinite(wait_s) else LONGEST_WAIT_S


def plain(text: str) -> str:
    """One short printable line: answers are other people's text and go to logs and terminals."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 300 else line[:299] + "…"

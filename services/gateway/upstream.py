"""The model servers: one HTTP client over all replicas, least-loaded choice, cool-down, health.

A request is sent again only while nothing of an answer has come, and only for what is the
replica's fault and not the adapter's: no connection, a connection lost, or 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import orjson

from ratchet.schemas.errors import ModelError

log = logging.getLogger("ratchet.gateway")
_CLIENT_FAULTS = frozenset((400, 413, 422))
"""Statuses by which a model server says that the request itself is wrong; everything else is a failure."""
_CONNECT_S = 5.0
_POLL_TIMEOUT_S = 5.0
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


class UpstreamFailure(ModelError):
    """No answer: the request may be tried elsewhere. ``code`` is the HTTP status where there was one."""

    def __init__(self, message: str, *, kind: Literal["error", "timeout"] = "error", code: int | None = None) -> None:
        """Say what happened, and whether it was a timeout."""
        super().__init__(message)
        self.kind: Literal["error", "timeout"] = kind
        self.code = code


class UpstreamRefusal(ModelError):
    """The client's fault (400, 413, 422): passed on with its status and body."""

    def __init__(self, code: int, body: bytes) -> None:
        """Keep the server's own words."""
        super().__init__(f"the model server refused the request with {code}")
        self.code = code
        self.body = body


@dataclass(slots=True, eq=False)
class Replica:
    """One model server and what is known of it."""

    url: str
    in_flight: int = 0
    healthy: bool = False
    """It took the last connection: a poll of its models succeeded, and none was refused since."""
    models: frozenset[str] = frozenset()
    down_until: float = 0.0
    last_used: int = 0


class Upstreams:
    """All replicas behind one client session."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float,
        monotonic: Callable[[], float],
        cooldown_s: float = 2.0,
        poll_s: float = 2.0,
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        """Know the replicas; nothing is opened before `start`.

        Args:
            urls: addresses without ``/v1``.
            timeout_s: the longest silence of a server, before and between bytes.
            monotonic: seconds that only grow.
            cooldown_s: how long a replica that just failed is left alone where there is another.
            poll_s: seconds between two looks at each replica's ``/v1/models``.
            on_retry: called for each request that is sent again.
        """
        self.replicas = [Replica(url.rstrip("/")) for url in urls]
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=timeout_s)
        self._monotonic = monotonic
        self._cooldown_s = cooldown_s
        self._poll_s = poll_s
        self._on_retry = on_retry
        self._uses = 0
        self._session: aiohttp.ClientSession | None = None
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the client and begin to watch the replicas."""
        # No limit of connections: the servers queue, and a limit here would hide that from the latency.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=self._timeout, auto_decompress=False, headers=_HEADERS
        )
        self._poller = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching and close every connection."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        if self._session is not None:
            await self._session.close()

    def models(self) -> set[str]:
        """Every model name that some replica served at the last look."""
        return set().union(*(replica.models for replica in self.replicas))

    def healthy(self) -> bool:
        """Whether some replica answered the last look."""
        return any(replica.healthy for replica in self.replicas)

    @contextlib.asynccontextmanager
    async def open(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its 200 response, whose body is not read yet; closes it at the end.

        Raises:
            UpstreamFailure: no replica gave an answer.
            UpstreamRefusal: the server says that the request is wrong.
        """
        response, replica = await self._send(path, orjson.dumps(body), str(body["model"]))
        try:
            yield response
        except TimeoutError as error:
            raise UpstreamFailure(f"{replica.url}: no bytes within the timeout", kind="timeout") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailure(f"{replica.url}: {error!r}") from error
        finally:
            replica.in_flight -= 1
            # A response that is not read to its end cannot share its connection: closing tells the server to stop.
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _send(self, path: str, payload: bytes, model: str) -> tuple[aiohttp.ClientResponse, Replica]:
        """Try replicas until one answers; the returned replica counts the request as in flight."""
        refused: set[str] = set()
        failure = UpstreamFailure("no model server is configured")
        for attempt in range(len(self.replicas) + 1):
            replica = self._pick(model, refused)
            if replica is None:
                break
            if attempt:
                self._on_retry()
            replica.in_flight += 1
            try:
                return await self._post(replica, path, payload), replica
            except _Again as again:
                replica.in_flight -= 1
                failure = again.failure
                if again.elsewhere:
                    refused.add(replica.url)
            except BaseException:
                replica.in_flight -= 1
                raise
        raise failure

    async def _post(self, replica: Replica, path: str, payload: bytes) -> aiohttp.ClientResponse:
        assert self._session is not None, "start() comes first"
        try:
            response = await self._session.post(replica.url + path, data=payload)
            if response.status == 200:
                return response
            async with response:
                raw = await response.read()
        except TimeoutError as error:
            self._cool(replica)
            failure = UpstreamFailure(f"{replica.url}: no answer within the timeout", kind="timeout")
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise _Again(failure, elsewhere=True) from error
            raise failure from error
        except (aiohttp.ClientError, OSError) as error:
            # A server may close a kept-alive connection just as it is used: that is worth a second try on itself.
            stale = isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError)
            if not stale:
                self._down(replica, repr(error))
            raise _Again(UpstreamFailure(f"{replica.url}: {error!r}"), elsewhere=not stale) from error
        if response.status in _CLIENT_FAULTS:
            raise UpstreamRefusal(response.status, raw)
        text = raw[:500].decode("utf-8", "replace")
        failure = UpstreamFailure(f"{replica.url}: HTTP {response.status}: {text}", code=response.status)
        if response.status == 503:
            self._cool(replica)
            raise _Again(failure, elsewhere=True)
        raise failure

    def _pick(self, model: str, refused: set[str]) -> Replica | None:
        """The least loaded replica, those in cool-down or without the adapter last."""
        now = self._monotonic()
        allowed = [replica for replica in self.replicas if replica.url not in refused]
        if not allowed:
            return None
        chosen = min(
            allowed,
            key=lambda r: (
                r.down_until > now,
                bool(r.models) and model not in r.models,
                r.in_flight,
                r.last_used,
            ),
        )
        self._uses += 1
        chosen.last_used = self._uses
        return chosen

    def _cool(self, replica: Replica) -> None:
        replica.down_until = self._monotonic() + self._cooldown_s

    def _down(self, replica: Replica, reason: str) -> None:
        self._cool(replica)
        if replica.healthy:
            log.warning("model server %s is down: %s", replica.url, reason)
        replica.healthy = False

    async def refresh(self) -> None:
        """Look at every replica's ``/v1/models`` now."""
        await asyncio.gather(*(self._look(replica) for replica in self.replicas))

    async def _look(self, replica: Replica) -> None:
        assert self._session is not None, "start() comes first"
        try:
            async with self._session.get(
                replica.url + "/v1/models", timeout=aiohttp.ClientTimeout(total=_POLL_TIMEOUT_S)
            ) as response:
                response.raise_for_status()
                listed = orjson.loads(await response.read())
                models = frozenset(str(item["id"]) for item in listed["data"])
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            self._down(replica, repr(error))
            return
        if not replica.healthy:
            log.info("model server %s is up with %d models", replica.url, len(models))
        replica.healthy, replica.models, replica.down_until = True, models, 0.0

    async def _watch(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_s)


class _Again(Exception):
    """The replica failed in a way that is worth another try; ``elsewhere``: not on the same one."""

    def __init__(self, failure: UpstreamFailure, *, elsewhere: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.elsewhere = elsewhere

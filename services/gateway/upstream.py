"""The model servers: one HTTP client over all replicas, and a look at each every few seconds.

A request is sent again only while nothing of an answer has come, and only for what is the
replica's fault and not the adapter's: no connection, a connection lost, 503, or an adapter that this
replica does not have (404): a replica that was restarted has lost its adapters until the controller loads
them again, and others have them. Which replica is asked, and which is left alone for a while, is `replicas.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

import orjson

from ratchet.infra.http1.client import ConnectTimeout, HttpClient, Stale
from ratchet.infra.http1.reply import Reply
from ratchet.schemas.errors import ModelError
from ratchet.services.gateway.replicas import Replica, Replicas, Sent
from ratchet.services.rules.circuit import State, Thresholds

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


class Unavailable(UpstreamFailure):
    """Every replica is left alone for now, and the request is none that is sent all the same."""


class UpstreamRefusal(ModelError):
    """The client's fault (400, 413, 422): passed on with its status and body."""

    def __init__(self, code: int, body: bytes) -> None:
        """Keep the server's own words."""
        super().__init__(f"the model server refused the request with {code}")
        self.code = code
        self.body = body


class Upstreams:
    """All replicas behind one client session."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float,
        monotonic: Callable[[], float],
        thresholds: Thresholds = Thresholds(),
        jitter: Callable[[], float] = random.random,
        preference: Callable[[str], Sequence[str] | None] = lambda _model: None,
        poll_s: float = 2.0,
        api_key: str | None = None,
        on_retry: Callable[[], None] = lambda: None,
        on_change: Callable[[str, State], None] = lambda _replica, _state: None,
    ) -> None:
        """Know the replicas; nothing is opened before `start`.

        Args:
            urls: addresses without ``/v1``.
            timeout_s: the longest silence of a server, before and between bytes.
            monotonic: seconds that only grow.
            thresholds: when a replica's circuit opens.
            jitter: draws a number from 0 to 1 for each cool-down.
            preference: the order in which replicas are preferred for a model; None: they are all the same to it.
            poll_s: seconds between two looks at each replica's ``/v1/models``.
            api_key: sent to them as a bearer token.
            on_retry: called for each request that is sent again.
            on_change: told a replica's name and its circuit's new state.
        """
        self._replicas = Replicas(
            urls, now=monotonic, thresholds=thresholds, jitter=jitter, preference=preference, on_change=on_change
        )
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._headers = _HEADERS | ({"authorization": f"Bearer {api_key}"} if api_key else {})
        self._on_retry = on_retry
        self._http: HttpClient | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def replicas(self) -> Sequence[Replica]:
        """Every replica, as it is now."""
        return self._replicas.all

    async def start(self) -> None:
        """Open the client and begin to watch the replicas."""
        # No limit of connections: the servers queue, and a limit here would hide that from the latency.
        self._http = HttpClient(connect_s=_CONNECT_S, silence_s=self._timeout_s, headers=self._headers)
        self._poller = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching and close every connection."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        if self._http is not None:
            await self._http.close()

    def models(self) -> set[str]:
        """Every model name that some replica served at the last look."""
        return set().union(*(replica.models for replica in self.replicas))

    def healthy(self) -> bool:
        """Whether some replica answered the last look."""
        return any(replica.healthy for replica in self.replicas)

    @contextlib.asynccontextmanager
    async def open(self, path: str, body: dict[str, Any], *, last_resort: bool = True) -> AsyncIterator[Reply]:
        """Send a request and give its 200 response, whose body is not read yet; closes it at the end.

        Args:
            path: the endpoint.
            body: the request; ``model`` is the served name.
            last_resort: try even where every replica is left alone for now.

        Raises:
            UpstreamFailure: no replica gave an answer (`Unavailable`: none was asked).
            UpstreamRefusal: the server says that the request is wrong.
        """
        response, sent = await self._send(path, orjson.dumps(body), str(body["model"]), last_resort)
        name = sent.replica.name
        try:
            yield response
            sent.answered()
        except TimeoutError as error:
            sent.failed(whole=True)
            raise UpstreamFailure(f"{name}: no bytes within the timeout", kind="timeout") from error
        except OSError as error:
            sent.failed(whole=True)
            raise UpstreamFailure(f"{name}: {error!r}") from error
        except ModelError:
            sent.failed(whole=False)  # an answer, but none that its reader can use
            raise
        finally:
            sent.end()
            response.close()

    async def _send(self, path: str, payload: bytes, model: str, last_resort: bool) -> tuple[Reply, Sent]:
        """Try replicas until one answers; the request counts as in flight until its `Sent` is ended."""
        failed: set[str] = set()
        dropped: set[str] = set()
        failure: UpstreamFailure = Unavailable("every model server is left alone for now")
        # once each, and one more for a kept-alive connection that was closed just as it was used
        for attempt in range(len(self.replicas) + 1):
            sent = self._replicas.send(model, failed, last_resort=last_resort)
            if sent is None and not failed and self._replicas.nobody_has(model):
                await self.refresh()  # it may have been loaded since the last look
                sent = self._replicas.send(model, failed, last_resort=last_resort)
                failure = UpstreamFailure(f"no model server has {model}", code=404)
            if sent is None:
                break
            if attempt:
                self._on_retry()
            url = sent.replica.url
            try:
                return await self._post(sent, path, payload, model, dropped), sent
            except _Again as again:
                sent.end()
                failure = again.failure
                if again.elsewhere:
                    failed.add(url)
                else:
                    dropped.add(url)
            except BaseException:
                sent.end()
                raise
        raise failure

    async def _post(self, sent: Sent, path: str, payload: bytes, model: str, dropped: set[str]) -> Reply:
        assert self._http is not None, "start() comes first"
        url, name = sent.replica.url, sent.replica.name
        try:
            response = await self._http.request("POST", url, path, payload)
            if response.status == 200:
                return response
            with contextlib.closing(response):
                raw = await response.read()
        except TimeoutError as error:
            sent.failed(whole=True)
            failure = UpstreamFailure(f"{name}: no answer within the timeout", kind="timeout")
            if isinstance(error, ConnectTimeout):
                raise _Again(failure, elsewhere=True) from error
            raise failure from error
        except OSError as error:
            # A server may close a kept-alive connection just as it is used: that is worth one more try on
            # itself, and says nothing of the server yet.
            stale = isinstance(error, Stale) and url not in dropped
            if not stale:
                sent.failed(whole=True)
            raise _Again(UpstreamFailure(f"{name}: {error!r}"), elsewhere=not stale) from error
        if response.status < 500:
            sent.answered()
        if response.status in _CLIENT_FAULTS:
            raise UpstreamRefusal(response.status, raw)
        text = raw[:500].decode("utf-8", "replace")
        failure = UpstreamFailure(f"{name}: HTTP {response.status}: {text}", code=response.status)
        if response.status == 404:
            if model in text:  # else it may be the path that it does not know
                self._replicas.lacks(sent.replica, model)
            raise _Again(failure, elsewhere=True)
        if response.status == 503:
            sent.failed(whole=True)
            raise _Again(failure, elsewhere=True)
        sent.failed(whole=False)  # nothing where it was an answer
        raise failure

    async def refresh(self) -> None:
        """Look at every replica's ``/v1/models`` now."""
        await asyncio.gather(*(self._look(replica) for replica in self.replicas))

    async def _look(self, replica: Replica) -> None:
        assert self._http is not None, "start() comes first"
        try:
            async with asyncio.timeout(_POLL_TIMEOUT_S):
                response = await self._http.request("GET", replica.url, "/v1/models")
                with contextlib.closing(response):
                    raw = await response.read()
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            models = frozenset(str(item["id"]) for item in orjson.loads(raw)["data"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._replicas.missed(replica, repr(error))
            return
        self._replicas.seen(replica, models)

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

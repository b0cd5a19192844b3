"""The client of an app: feedback and events to Ratchet, without ever holding the app up.

The app's requests go through the plain OpenAI client with the gateway as its ``base_url``. This one
says what came of them, and logs calls of models that the gateway did not serve:

    ratchet = Client("http://gateway:8080", api_key="rk_…", task="support")
    ratchet.feedback(inference_id, thumb=True)

An event is checked where it is said and queued; a thread sends it, again where that must be. The queue
is bounded: without room new events are dropped, counted in ``dropped`` and logged, unless ``wait_s`` lets
a call wait. What the gateway refuses is counted in ``refused``, logged, and handed to ``on_error``. Events
are idempotent by their ids, so nothing counts twice. `flush` waits for the rest; the interpreter's exit
does so by itself for ``exit_timeout_s``. A process that ends without it (a signal's default action,
``os._exit``, children of `multiprocessing`) must call `close` itself. Forked workers (gunicorn, uWSGI) may
share a client that was made before the fork: each gets a queue and connections of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypedDict, Unpack

from ratchet.infra.kafka.config import MAX_RECORD_BYTES
from ratchet.schemas.events import Feedback, Inference
from ratchet.services.rules.sending import Parcel
from ratchet.services.sending import events
from ratchet.services.sending.events import Call, Said
from ratchet.services.sending.http import Http
from ratchet.services.sending.kafka import Kafka
from ratchet.services.sending.outbox import Outbox, Rejected

__all__ = ["AsyncClient", "Client", "Rejected"]

Event = Inference | Feedback | Mapping[str, Any]
_POLL_S = 0.01


class Options(TypedDict, total=False):
    """How a client queues; every one has a default."""

    queue_events: int
    """Events that may wait (10,000)."""
    queue_bytes: int
    """Bytes that they may have (64 MiB)."""
    wait_s: float
    """How long a call may wait for room in a full queue (0: not at all)."""
    linger_s: float
    """How long a batch that is not full waits for company (0.1)."""
    exit_timeout_s: float
    """How long the interpreter's exit may wait for the queue (5)."""
    on_error: Callable[[Rejected], object] | None
    """Hears of each event that was refused, in the sending thread."""


class _Sender:
    """What both clients have in common: packing, the queue, and its figures."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        task: str | None = None,
        timeout_s: float = 10.0,
        **options: Unpack[Options],
    ) -> None:
        """Make a client of a gateway; nothing is sent yet.

        Args:
            url: the gateway's address, with or without ``/v1``.
            api_key: with the scope ``feedback`` for `feedback`, ``ingest`` for everything else.
            task: what events are about that do not say so themselves. Feedback on an inference that
                the gateway served needs none.
            timeout_s: the longest silence of the gateway before a request is sent again.
            **options: see `Options`.

        Raises:
            ValueError: names the argument and what is allowed.
        """
        self._set_up(Http(url, api_key, timeout_s), task, options)

    @classmethod
    def to_kafka(
        cls, bootstrap: str, *, task: str | None = None, tenant: str = "default", **options: Unpack[Options]
    ) -> Self:
        """Make a client that writes to Kafka itself. The gateway's redaction is not on this way.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            task: what events are about that do not say so themselves; feedback needs one here.
            tenant: whose events these are.
            **options: see `Options`.

        Raises:
            ImportError: confluent-kafka is not installed (``pip install 'ratchet[kafka]'``).
            ValueError: names the argument and what is allowed.
        """
        client = cls.__new__(cls)
        client._set_up(Kafka(bootstrap, tenant), task, options)
        return client

    def _set_up(self, way: Http | Kafka, task: str | None, options: Options) -> None:
        least = {"queue_events": 1, "queue_bytes": MAX_RECORD_BYTES, "wait_s": 0, "linger_s": 0, "exit_timeout_s": 0}
        defaults = {
            "queue_events": 10_000,
            "queue_bytes": 64 * 2**20,
            "wait_s": 0.0,
            "linger_s": 0.1,
            "exit_timeout_s": 5.0,
            "on_error": None,
        }
        for name, value in options.items():
            if name not in defaults:
                raise TypeError(f"{name!r} is no option; allowed: {', '.join(defaults)}")
            if name in least and not (isinstance(value, int | float) and least[name] <= value < float("inf")):
                raise ValueError(f"{name} {value!r}; allowed: a number from {least[name]} up")
        chosen: dict[str, Any] = defaults | dict(options)
        self._way = way
        self._task = task
        self._wait_s: float = chosen.pop("wait_s")
        self._outbox = Outbox(way.connect, **chosen)

    @property
    def waiting(self) -> int:
        """Events that are queued or under way."""
        return self._outbox.waiting

    @property
    def accepted(self) -> int:
        """Events that the gateway (or Kafka) has taken."""
        return self._outbox.accepted

    @property
    def refused(self) -> int:
        """Events that it will never take; ``on_error`` and the log have each."""
        return self._outbox.refused

    @property
    def dropped(self) -> int:
        """Events for which the queue had no room."""
        return self._outbox.dropped

    def _pack_feedback(self, inference_id: str | None, said: Said) -> Parcel:
        return self._way.feedback(events.feedback(inference_id, said, self._task))

    def _pack_call(self, model: str, latency_ms: float, call: Call) -> Parcel:
        return self._way.event(events.inference(model, latency_ms, call, self._task, self._way.source))

    def _pack_event(self, event: Event) -> Parcel:
        return self._way.event(events.whole_event(event, self._task, self._way.source))


class Client(_Sender):
    """The client for ordinary code; safe to share between threads, and over a fork."""

    def feedback(self, inference_id: str | None = None, **said: Unpack[Said]) -> str:
        """Say what a user thought of an answer; returns the feedback's id.

        Args:
            inference_id: the answer's ``x-ratchet-inference-id``; or ``conversation_id=…``.
            **said: exactly one of ``thumb``, ``rating``, ``comment``, ``correction``, ``preference``,
                ``outcome``, and what else `Said` names.

        Raises:
            InvalidEvent: names the field, its value and what is allowed.
        """
        return self._put(self._pack_feedback(inference_id, said))

    def log_inference(self, *, model: str, latency_ms: float, **call: Unpack[Call]) -> str:
        """Log a call of a model that the gateway did not serve; returns the inference's id, for feedback.

        Args:
            model: the base model's name.
            latency_ms: how long the whole answer took.
            **call: ``messages`` or ``prompt``, ``content``, and what else `Call` names.

        Raises:
            InvalidEvent: names the field, its value and what is allowed.
        """
        return self._put(self._pack_call(model, latency_ms, call))

    def emit(self, event: Event) -> str:
        """Send a whole ``inference.v1`` or ``feedback.v1``, as an object or its JSON fields; returns its id.

        Raises:
            InvalidEvent: names the field, its value and what is allowed.
        """
        return self._put(self._pack_event(event))

    def flush(self, timeout_s: float = 10.0) -> int:
        """Wait until every event is settled, at most that long; returns how many are not."""
        return self._outbox.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> int:
        """Flush for a last time and stop; returns how many events were not sent. Calling it again does nothing."""
        self._outbox.flush(timeout_s)
        left = self._outbox.close()
        self._outbox.join()
        return left

    def _put(self, parcel: Parcel) -> str:
        self._outbox.put(parcel, self._wait_s)
        return parcel.id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Sender):
    """The client for asyncio: what may take time is awaited, and the event loop is never held up.

    The sending is done by the same thread as `Client`'s, so events also leave when the loop is busy or gone.
    """

    async def feedback(self, inference_id: str | None = None, **said: Unpack[Said]) -> str:
        """Say what a user thought of an answer; see `Client.feedback`."""
        return await self._put(self._pack_feedback(inference_id, said))

    async def log_inference(self, *, model: str, latency_ms: float, **call: Unpack[Call]) -> str:
        """Log a call of a model that the gateway did not serve; see `Client.log_inference`."""
        return await self._put(self._pack_call(model, latency_ms, call))

    async def emit(self, event: Event) -> str:
        """Send a whole event; see `Client.emit`."""
        return await self._put(self._pack_event(event))

    async def flush(self, timeout_s: float = 10.0) -> int:
        """Wait until every event is settled, at most that long; returns how many are not."""
        self._outbox.hurry()
        deadline = time.monotonic() + timeout_s
        # the thread that sends knows no event loop that it could tell
        while self._outbox.waiting and not self._outbox.closed and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return self._outbox.waiting

    async def close(self, timeout_s: float = 10.0) -> int:
        """Flush for a last time and stop; see `Client.close`."""
        await self.flush(timeout_s)
        return self._outbox.close()

    async def _put(self, parcel: Parcel) -> str:
        deadline = time.monotonic() + self._wait_s
        while self._wait_s and time.monotonic() < deadline:
            if self._outbox.offer(parcel):
                return parcel.id
            await asyncio.sleep(_POLL_S)
        self._outbox.put(parcel)
        return parcel.id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

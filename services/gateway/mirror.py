"""Copies of production requests for the candidate, after the user has the answer and never in the way.

A copy waits for a free place of its own; when too many wait, or too much, new ones are left out (and
counted): under load the mirror gives way first, users never do. Streams are mirrored as whole answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ratchet.schemas.errors import ModelError
from ratchet.services.gateway.answers import read_answer
from ratchet.services.gateway.asks import Ask, mirrored_body
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.pools import Servers
from ratchet.services.gateway.presence import Traffic
from ratchet.services.gateway.record import NOTHING, Attempt, Sources, Status, shadow_event
from ratchet.services.gateway.upstream import Unavailable, UpstreamFailure
from ratchet.services.rules.routing import Leg


class Mirror:
    """Runs the copies, ``concurrency`` at a time, with at most ``waiting`` more and ``most_bytes`` in all."""

    def __init__(
        self,
        upstreams: Servers,
        emitter: Emitter,
        metrics: Metrics,
        sources: Sources,
        traffic: Traffic,
        *,
        concurrency: int,
        waiting: int,
        most_bytes: int,
        low_priority: bool = False,
        wanted: Callable[[str, str], bool] = lambda _task, _rollout_id: True,
    ) -> None:
        """Know where copies go; nothing runs yet.

        Args:
            upstreams: the model servers.
            emitter: takes the shadow events.
            metrics: counts copies.
            sources: time and ids.
            traffic: counts copies beside everything else that is at the model servers.
            concurrency: copies that run at once.
            waiting: copies that may wait for that; more are left out.
            most_bytes: of the request bodies of all copies that wait or run: the number of copies bounds no
                memory while one body may have megabytes.
            low_priority: copies say that they may wait; only servers that schedule by priority take that.
            wanted: whether a task's rollout still wants a copy that waited.
        """
        self._low_priority = low_priority
        self._wanted = wanted
        self._upstreams = upstreams
        self._emitter = emitter
        self._metrics = metrics
        self._sources = sources
        self._traffic = traffic
        self._places = asyncio.Semaphore(concurrency)
        self._most = concurrency + waiting
        self._most_bytes = most_bytes
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, ask: Ask, candidate: str, inference_id: str, rollout_id: str) -> None:
        """Queue one copy; returns at once."""
        if len(self._tasks) >= self._most or self._bytes + ask.size > self._most_bytes:
            self._metrics.mirrors_skipped.inc()
            return
        task = asyncio.create_task(self._copy(ask, candidate, inference_id, rollout_id))
        self._tasks.add(task)
        self._bytes += ask.size
        self._metrics.mirrors_in_flight.set(len(self._tasks))
        task.add_done_callback(partial(self._forget, size=ask.size))

    def _forget(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self._bytes -= size
        self._metrics.mirrors_in_flight.set(len(self._tasks))

    async def _copy(self, ask: Ask, candidate: str, inference_id: str, rollout_id: str) -> None:
        async with self._places:
            if not self._wanted(ask.task, rollout_id):
                self._metrics.mirrors_skipped.inc()  # aborted, or past its shadow stage, while this copy waited
                return
            attempt = Attempt(self._sources, Leg(candidate, "canary"))
            status: Status = "ok"
            answer, problem = NOTHING, None
            self._traffic.begin(candidate, attempt.at)
            try:
                body = mirrored_body(ask, low_priority=self._low_priority) | {"model": candidate}
                async with self._upstreams.open(ask.path, body, last_resort=False) as response:
                    answer = read_answer(await response.read())
            except Unavailable:
                self._metrics.mirrors_skipped.inc()  # no server is well: what it can do is the users'
                return
            except ModelError as error:
                status = error.kind if isinstance(error, UpstreamFailure) else "error"
                problem = str(error)
            finally:
                self._traffic.end(candidate)
            event = shadow_event(
                self._sources,
                ask,
                attempt,
                inference_id=inference_id,
                rollout_id=rollout_id,
                status=status,
                answer=answer,
                error=problem,
            )
            self._emitter.emit(event)
            self._metrics.mirrors.labels(status).inc()

    async def close(self, timeout_s: float) -> None:
        """Let running copies finish for ``timeout_s``, then stop them: an unfinished copy is no observation."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

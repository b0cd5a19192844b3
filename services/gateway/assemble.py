"""The gateway put together: from settings' values to one ASGI app."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from ratchet.infra import clock
from ratchet.infra.kafka.publisher import Publisher
from ratchet.infra.kafka.spooled import SpoolStatus
from ratchet.infra.keys import Keyring
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.pricing import Price
from ratchet.services.gateway.app import Gateway
from ratchet.services.gateway.door import Door
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.feedback import FeedbackDesk
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.mirror import Mirror
from ratchet.services.gateway.proxy import Proxy
from ratchet.services.gateway.ready import Checks, Readiness
from ratchet.services.gateway.recent import Origins, Recent
from ratchet.services.gateway.record import Sources
from ratchet.services.gateway.redact import EventRedactor
from ratchet.services.gateway.routes import RoutingTables
from ratchet.services.gateway.traces import TraceDesk
from ratchet.services.gateway.upstream import Upstreams
from ratchet.services.rules.circuit import Thresholds
from ratchet.services.rules.cost import PriceList
from ratchet.services.rules.placement import Placement, ranking


def create_app(
    tasks: Mapping[str, TaskPolicy],
    base_model: str,
    upstreams: Sequence[str],
    publisher: Publisher,
    routes: RoutingTables,
    *,
    keys: Keyring | None = None,
    needed: Checks | None = None,
    wanted: Checks | None = None,
    spool: Callable[[], SpoolStatus] | None = None,
    placement: Placement | None = None,
    thresholds: Thresholds = Thresholds(),
    copies_wait: bool = False,
    now: Callable[[], datetime] = clock.now,
    new_id: Callable[[], str] = clock.new_id,
    monotonic: Callable[[], float] = time.perf_counter,
    upstream_timeout_s: float = 120.0,
    mirror_concurrency: int = 2,
    mirror_waiting: int = 256,
    mirror_bytes: int = 64 * 2**20,
    max_body_bytes: int = 16 * 2**20,
    body_timeout_s: float = 30.0,
    recent_inferences: int = 100_000,
    recent_feedback: int = 100_000,
    poll_s: float = 2.0,
    keys_poll_s: float = 1.0,
    redaction_salt: str = "",
    prices: Mapping[str, Price] = MappingProxyType({}),
) -> Gateway:
    """Put the gateway together.

    Args:
        tasks: the declared tasks by name.
        base_model: the base model's served name.
        upstreams: the model servers' addresses, without ``/v1``.
        publisher: takes every event; flushed when the app ends, closed by its owner.
        routes: the routing tables, kept current by their owner.
        keys: who may do what; None, or none ever created: everyone may do everything.
        needed: what ``/readyz`` asks besides the model servers, by the name of what is missing; answers at once.
        wanted: what it names as away without saying that the gateway is not ready.
        spool: what the publisher's spool holds, where it has one: for the metrics.
        placement: which model servers have which adapter, by the addresses in ``upstreams``; None: all have all.
        thresholds: when a model server is left alone.
        copies_wait: the model servers schedule by priority, so mirrored copies are sent with a low one.
        now: the wall clock.
        new_id: makes UUIDv7 ids.
        monotonic: seconds that only grow.
        upstream_timeout_s: the longest silence of a model server.
        mirror_concurrency: copies that run at once.
        mirror_waiting: copies that may wait; more are left out and counted.
        mirror_bytes: of the bodies of all copies that wait or run; more are left out and counted.
        max_body_bytes: larger requests get a 413.
        body_timeout_s: the most seconds that a request's body may take; then it gets a 408.
        recent_inferences: how many inferences' tasks are remembered for feedback.
        recent_feedback: how many feedback ids are remembered for idempotence.
        poll_s: seconds between looks at the model servers.
        keys_poll_s: seconds between looks at the key file.
        redaction_salt: the key of the placeholders' hash; the same in every gateway of an installation.
        prices: by the name of a model or an adapter; a task's own price is in its policy.
    """
    metrics = Metrics(spool)
    emitter = Emitter(publisher, metrics, EventRedactor(tasks, redaction_salt, metrics), PriceList(prices, tasks))
    sources = Sources(now, new_id, monotonic, base_model)

    def preference(model: str) -> Sequence[str] | None:
        adapters = routes.adapters
        if placement is None or not placement.spread(adapters) or model not in adapters:
            return None
        return ranking(model, placement.replicas)

    servers = Upstreams(
        upstreams,
        timeout_s=upstream_timeout_s,
        monotonic=monotonic,
        thresholds=thresholds,
        preference=preference,
        poll_s=poll_s,
        on_retry=metrics.retries.inc,
        on_change=lambda replica, state: metrics.transitions.labels(replica, state).inc(),
    )
    metrics.watch(servers.replicas)

    def mirrored(task: str, rollout_id: str) -> bool:
        table = routes.get(task)
        return table is not None and table.rollout_id == rollout_id and table.mirror_bp > 0

    mirror = Mirror(
        servers,
        emitter,
        metrics,
        sources,
        concurrency=mirror_concurrency,
        waiting=mirror_waiting,
        most_bytes=mirror_bytes,
        low_priority=copies_wait,
        wanted=mirrored,
    )
    origins = Origins(recent_inferences)
    return Gateway(
        tasks,
        routes,
        servers,
        emitter,
        mirror,
        Proxy(servers, emitter, mirror, metrics, sources, origins),
        FeedbackDesk(tasks, origins, Recent(recent_feedback), emitter, now=now, new_id=new_id),
        TraceDesk(tasks, base_model, origins, emitter, metrics, max_body_bytes=max_body_bytes),
        metrics,
        origins,
        Readiness({**(needed or {}), "model server": servers.healthy}, wanted or {}, metrics),
        Door(keys, metrics, monotonic, keys_poll_s),
        new_id=new_id,
        max_body_bytes=max_body_bytes,
        body_timeout_s=body_timeout_s,
        started=int(now().timestamp()),
    )

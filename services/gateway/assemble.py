"""The gateway put together: from settings' values to one ASGI app."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ratchet.infra import clock
from ratchet.infra.kafka.publisher import Publisher
from ratchet.infra.kafka.spooled import SpoolStatus
from ratchet.infra.keys import Keyring
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.app import Gateway
from ratchet.services.gateway.door import Door
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.feedback import FeedbackDesk
from ratchet.services.gateway.manifests import Manifests
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.mirror import Mirror
from ratchet.services.gateway.options import GatewayOptions
from ratchet.services.gateway.pools import Pools, PoolServers, Servers, base_of
from ratchet.services.gateway.presence import Presence, Traffic
from ratchet.services.gateway.proxy import Proxy
from ratchet.services.gateway.ready import Checks, Readiness, Silences
from ratchet.services.gateway.recent import Origins, Recent
from ratchet.services.gateway.record import Sources
from ratchet.services.gateway.redact import EventRedactor
from ratchet.services.gateway.routes import RoutingTables
from ratchet.services.gateway.traces import TraceDesk
from ratchet.services.gateway.upstream import Upstreams
from ratchet.services.rules.cost import PriceList
from ratchet.services.rules.placement import ranking


def create_app(
    tasks: Mapping[str, TaskPolicy],
    base_model: str,
    upstreams: Sequence[str],
    publisher: Publisher,
    routes: RoutingTables,
    *,
    manifests: Manifests | None = None,
    keys: Keyring | None = None,
    needed: Checks | None = None,
    wanted: Checks | None = None,
    silences: Silences | None = None,
    spool: Callable[[], SpoolStatus] | None = None,
    name: str | None = None,
    known: Callable[[], bool] = lambda: True,
    options: GatewayOptions = GatewayOptions(),
    now: Callable[[], datetime] = clock.now,
    new_id: Callable[[], str] = clock.new_id,
    monotonic: Callable[[], float] = time.perf_counter,
) -> Gateway:
    """Put the gateway together.

    Args:
        tasks: the declared tasks by name.
        base_model: the base model's served name.
        upstreams: the model servers' addresses, without ``/v1``.
        publisher: takes every event; flushed when the app ends, closed by its owner.
        routes: the routing tables, kept current by their owner.
        manifests: which base model each adapter belongs to, kept current by their owner; needed with several pools.
        keys: who may do what; None, or none ever created: everyone may do everything.
        needed: what ``/readyz`` asks besides the model servers, by the name of what is missing; answers at once.
        wanted: what it names as away without saying that the gateway is not ready.
        silences: for how long each follower of a topic has heard nothing of Kafka, by what it follows.
        spool: what the publisher's spool holds, where it has one: for the metrics.
        name: what this process is called in its acknowledgements of routing tables; None: it acknowledges none.
        known: whether the routing tables were read to their present end.
        options: the operator's choices.
        now: the wall clock.
        new_id: makes UUIDv7 ids.
        monotonic: seconds that only grow.
    """
    metrics = Metrics(spool)
    emitter = Emitter(
        publisher, metrics, EventRedactor(tasks, options.redaction_salt, metrics), PriceList(options.prices, tasks)
    )
    manifests = manifests or Manifests()
    base = base_of(manifests, base_model)
    sources = Sources(now, new_id, monotonic, base_model, base)

    def preference(model: str) -> Sequence[str] | None:
        adapters = routes.adapters
        if options.pools:
            adapters = frozenset(name for name in adapters if base(name) not in options.pools)
        if options.placement is None or not options.placement.spread(adapters) or model not in adapters:
            return None
        return ranking(model, options.placement.replicas)

    def pool(urls: Sequence[str], **more: Any) -> Upstreams:
        return Upstreams(
            urls,
            timeout_s=options.upstream_timeout_s,
            monotonic=monotonic,
            thresholds=options.thresholds,
            on_retry=metrics.retries.inc,
            on_change=lambda replica, state: metrics.transitions.labels(replica, state).inc(),
            **more,
        )

    first = pool(upstreams, preference=preference, poll_s=options.poll_s)
    others = {
        name: PoolServers(
            pool(one.urls, poll_s=options.provider_poll_s if one.provider else options.poll_s, api_key=one.api_key),
            one.provider,
        )
        for name, one in options.pools.items()
    }
    servers: Servers = Pools(first, others, manifests) if others else first
    metrics.watch(servers.replicas)
    metrics.follow(routes, silences or {})
    traffic = Traffic()
    presence = None
    if name is not None:
        presence = Presence(name, routes, traffic, emitter.emit, ready=known, now=now, new_id=new_id)

    def mirrored(task: str, rollout_id: str) -> bool:
        table = routes.get(task)
        return table is not None and table.rollout_id == rollout_id and table.mirror_bp > 0

    mirror = Mirror(
        servers,
        emitter,
        metrics,
        sources,
        traffic,
        concurrency=options.mirror_concurrency,
        waiting=options.mirror_waiting,
        most_bytes=options.mirror_bytes,
        low_priority=options.copies_wait,
        wanted=mirrored,
    )
    origins = Origins(options.recent_inferences)
    return Gateway(
        tasks,
        routes,
        servers,
        emitter,
        mirror,
        Proxy(servers, emitter, mirror, metrics, sources, origins, traffic),
        FeedbackDesk(tasks, origins, Recent(options.recent_feedback), emitter, now=now, new_id=new_id),
        TraceDesk(tasks, base_model, origins, emitter, metrics, max_body_bytes=options.max_body_bytes),
        metrics,
        origins,
        Readiness({**(needed or {}), "model server": servers.healthy}, wanted or {}, silences or {}, metrics),
        Door(keys, metrics.keys_stale.set, monotonic, options.keys_poll_s),
        presence,
        new_id=new_id,
        max_body_bytes=options.max_body_bytes,
        body_timeout_s=options.body_timeout_s,
        started=int(now().timestamp()),
    )

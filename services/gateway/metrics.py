"""Every metric of the gateway, in one list, in a registry of the app's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ratchet.infra.kafka.spooled import SpoolStatus
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.gateway.replicas import Replica
from ratchet.services.gateway.routes import RoutingTables

_STATES = {"closed": 0, "half-open": 1, "open": 2}
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_KNOWN = 1024


class Metrics:
    """Counters and histograms; adapters and stages are few, so they may be labels.

    What every request counts has its label look-up remembered: ``…_of`` (4 µs each otherwise).
    """

    def __init__(self, spool: Callable[[], SpoolStatus] | None = None) -> None:
        """Register everything in a fresh registry, so that two apps in one process do not collide.

        Args:
            spool: what the publisher's spool holds now, asked at each exposition; None: there is no spool.
        """
        self.registry = registry = CollectorRegistry()
        # Every request to an inference endpoint that was answered, by what the client was told.
        self.requests = Counter("ratchet_requests", "Answered HTTP requests", ["path", "code"], registry=registry)
        # Tries of an adapter that gave no answer (error, timeout); a fallback may have saved the user.
        self.errors = Counter(
            "ratchet_errors", "Failed attempts of an adapter", ["adapter", "stage", "status"], registry=registry
        )
        # Answers that came from a fallback, by the adapter that failed first.
        self.fallbacks = Counter(
            "ratchet_fallbacks", "Answers by a fallback", ["task", "failed_adapter"], registry=registry
        )
        # What the calls of the model servers cost, where a price is set; a copy's stage is shadow.
        self.cost = Counter("ratchet_cost_usd", "Cost in USD", ["task", "adapter", "stage"], registry=registry)
        # Requests sent again to another replica before the first byte.
        self.retries = Counter("ratchet_upstream_retries", "Retries on another replica", registry=registry)
        self.transitions = Counter(
            "ratchet_upstream_transitions",
            "Changes of a model server's circuit, by its new state",
            ["replica", "state"],
            registry=registry,
        )
        # One observation an attempt that answered, client hang-ups left out.
        self.latency = Histogram(
            "llm_adapter_latency_seconds",
            "Whole answer, by adapter and stage",
            ["adapter", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        # Streams only: until the first chunk with text or a tool call.
        self.ttft = Histogram(
            "llm_adapter_ttft_seconds",
            "Time to first token of streams, by adapter and stage",
            ["adapter", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        # Events that the publisher took, and those it refused (its spool is at its limit, or the disk
        # is full): the second should be 0.
        self.published = Counter("ratchet_events_published", "Events handed to Kafka", ["topic"], registry=registry)
        self.dropped = Counter("ratchet_events_dropped", "Events lost", ["topic"], registry=registry)
        for topic in ("inference", "feedback", "shadow"):
            self.published.labels(topic)
            self.dropped.labels(topic)
        # Values that were replaced by placeholders before Kafka; tasks that are not declared count as one.
        self.redactions = Counter(
            "ratchet_redactions", "Values redacted before Kafka", ["task", "kind"], registry=registry
        )
        self.waiting = Gauge("ratchet_events_waiting", "Events that Kafka has not confirmed yet", registry=registry)
        # What the gateway needs or wants beside itself: 1 while it is there. Without "broker" events wait on disk.
        self.parts = Gauge("ratchet_part_up", "What the gateway depends on is there", ["part"], registry=registry)
        # 1 while the key file cannot be read: revocations do not arrive until a person looks.
        self.keys_stale = Gauge("ratchet_keys_stale", "The key file cannot be read", registry=registry)
        # Spans of POST /v1/traces: made an inference, no call of a model, or refused with a reason.
        self.spans = Counter("ratchet_spans", "Spans by outcome", ["outcome"], registry=registry)
        for outcome in ("taken", "ignored", "rejected"):
            self.spans.labels(outcome)
        # Events on disk on their way to Kafka. Waiting ones pile up while Kafka is away; lost ones (damaged
        # on disk, or refused by Kafka for good) should be 0.
        if spool is not None:
            for name, text in (
                ("bytes", "Size of the spool on disk"),
                ("records", "Events in the spool that Kafka has not confirmed yet"),
                ("lost", "Events of the spool that were damaged on disk or refused by Kafka for good"),
            ):
                gauge = Gauge(f"ratchet_spool_{name}", text, registry=registry)
                gauge.set_function(partial(_now, spool, name))
        self.requests_of = lru_cache(_KNOWN)(self.requests.labels)
        self.latency_of = lru_cache(_KNOWN)(self.latency.labels)
        self.published_of = lru_cache(_KNOWN)(self.published.labels)
        # Copies for the candidate: now waiting or running, done, and left out under load.
        self.mirrors_in_flight = Gauge(
            "ratchet_mirrors_in_flight", "Mirrored requests waiting or running", registry=registry
        )
        self.mirrors = Counter("ratchet_mirrors", "Mirrored requests by outcome", ["status"], registry=registry)
        self.mirrors_skipped = Counter("ratchet_mirrors_skipped", "Mirrors left out under load", registry=registry)

    def watch(self, replicas: Iterable[Replica]) -> None:
        """Show the model servers' circuits and what each has in flight, read at each exposition."""
        state = Gauge(
            "ratchet_upstream_state",
            "A model server's circuit: 0 closed, 1 half-open, 2 open",
            ["replica"],
            registry=self.registry,
        )
        in_flight = Gauge(
            "ratchet_upstream_in_flight", "Requests at a model server", ["replica"], registry=self.registry
        )
        for replica in replicas:
            state.labels(replica.name).set_function(partial(_state, replica))
            in_flight.labels(replica.name).set_function(partial(_in_flight, replica))

    def follow(self, routes: RoutingTables, silences: Mapping[str, Callable[[], float]]) -> None:
        """Show which table each task is routed by, and for how long Kafka was not heard of: so old may a table be."""
        version = Gauge(
            "ratchet_routing_table_version", "Version of the routing table in force", ["task"], registry=self.registry
        )

        def show(table: Rollout) -> None:
            version.labels(table.task).set(table.version)

        routes.listen(show)
        silent = Gauge(
            "ratchet_follower_silence_seconds",
            "How long a follower of a state topic has heard nothing of Kafka",
            ["follows"],
            registry=self.registry,
        )
        for what, silence in silences.items():
            silent.labels(what).set_function(silence)

    def exposition(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


def _state(replica: Replica) -> float:
    return _STATES[replica.circuit.state]


def _in_flight(replica: Replica) -> float:
    return replica.in_flight


def _now(spool: Callable[[], SpoolStatus], name: str) -> float:
    return float(getattr(spool(), name))

"""The one wiring file: settings to parts. Everything else takes its dependencies as arguments.

Imports are inside the functions, so a command loads only what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from ratchet.infra import settings as settings_module
from ratchet.schemas.errors import StartError

if TYPE_CHECKING:
    from ratchet.consumers.calibration import Questions
    from ratchet.consumers.monitor import Monitor
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.clickhouse.ddl import Cluster
    from ratchet.infra.judge import JudgeClient
    from ratchet.infra.judge_cache import JudgeCache
    from ratchet.infra.kafka.publisher import KafkaPublisher
    from ratchet.infra.kafka.spooled import SpooledPublisher
    from ratchet.infra.keys import KeyFile, Keyring
    from ratchet.infra.models.fleet import Fleet
    from ratchet.infra.models.vllm import VllmClient
    from ratchet.infra.settings import Settings
    from ratchet.infra.sinks.outbox import Outbox
    from ratchet.infra.tracking.tracker import Tracker
    from ratchet.services.controller.controller import Controller
    from ratchet.services.gateway.options import GatewayOptions, PoolOptions
    from ratchet.services.rules.placement import Placement
    from ratchet.trainers.adapters.shelf import Shelf


@dataclass(frozen=True)
class Prepared:
    """What `prepare` had to do."""

    migrations: list[str]
    topics: list[str]
    retention: list[str]
    """Tables whose retention changed, each with what it is now."""


def settings() -> Settings:
    """Read ``ratchet.toml`` and ``RATCHET_*`` of this process."""
    return settings_module.load()


def store(s: Settings, database: str | None = None) -> Store:
    """Connect to ClickHouse; a ``database`` beside the settings' own need not exist yet."""
    from ratchet.infra.clickhouse.client import beside, connect

    dsn = beside(s.clickhouse, database) if database else s.clickhouse
    return connect(dsn, clustered=s.clickhouse_cluster is not None)


def cluster(s: Settings) -> Cluster | None:
    """Name the ClickHouse cluster, where there is one."""
    from ratchet.infra.clickhouse.ddl import Cluster

    return Cluster(s.clickhouse_cluster, "ratchet") if s.clickhouse_cluster else None


def retention(s: Settings) -> dict[str, str]:
    """Say what TTL each table should have."""
    from ratchet.infra.clickhouse.retention import clauses

    return clauses(s.retention, {name: policy.retention for name, policy in s.tasks.items()})


def key_file(s: Settings) -> KeyFile:
    """Name the file with the API keys."""
    from ratchet.infra.keys import FILE_NAME, KeyFile

    return KeyFile(s.home / FILE_NAME)


def keyring(s: Settings) -> Keyring:
    """Read the API keys, to be followed.

    Raises:
        KeysError: there is a key file and it cannot be used.
    """
    from ratchet.infra.keys import Keyring

    return Keyring(key_file(s))


def publisher(s: Settings, client_id: str) -> KafkaPublisher:
    """Make a producer of events."""
    from ratchet.infra.kafka.publisher import KafkaPublisher

    return KafkaPublisher(s.kafka, s.idempotence, client_id)


def spooled_publisher(s: Settings, process: str) -> SpooledPublisher:
    """Make a producer that keeps events on disk until Kafka has them, in ``<home>/spool/<process>``.

    Raises:
        StartError: the folder cannot be written, or another process has it.
    """
    from ratchet.infra.kafka.spool import Spool
    from ratchet.infra.kafka.spooled import SpooledPublisher

    spool = Spool(s.home / "spool" / process, s.spool_max_mb * 2**20)
    return SpooledPublisher(s.kafka, s.idempotence, f"ratchet-{process}", spool)


def outbox_path(s: Settings) -> Path:
    """Name the file that says what each sink of alerts has heard."""
    return s.home / "alerts" / "outbox.sqlite"


def outbox(s: Settings) -> Outbox:
    """Open the outbox of alerts.

    Raises:
        StartError: it cannot be written.
    """
    from ratchet.infra.sinks.outbox import Outbox

    return Outbox(outbox_path(s))


def tracker(s: Settings) -> Tracker:
    """Make a client of the experiment tracker that is set."""
    from ratchet.infra.tracking.tracker import open_tracker

    assert s.tracking is not None, "asked for where a tracker is set"
    return open_tracker(s.tracking, s.home / "wandb")


def vllm(s: Settings) -> VllmClient:
    """Make a client of every vLLM replica."""
    from ratchet.infra.models.vllm import VllmClient

    return VllmClient(s.vllm)


def placement(s: Settings) -> Placement:
    """Say where adapters lie: the same for the controller, which loads by it, and the gateway, which routes by it."""
    from ratchet.services.rules.placement import Placement

    pools = {pool.base_model: tuple(pool.urls) for pool in s.pools.values()}
    return Placement(tuple(s.vllm), s.adapters_per_replica, s.adapter_copies, pools)


def fleet(s: Settings) -> Fleet:
    """Make a client of every model server of every pool, for managing adapters."""
    from ratchet.infra.models.fleet import Fleet
    from ratchet.infra.models.provider import Provider
    from ratchet.infra.models.vllm import VllmClient

    pools = s.pools.values()
    ours = [*s.vllm, *(url for pool in pools if pool.kind == "vllm" for url in pool.urls)]
    theirs = [Provider(pool.urls[0], pool.key) for pool in pools if pool.kind == "openai"]
    return Fleet(VllmClient(ours), theirs)


def shelf(s: Settings) -> Shelf:
    """Say where adapters lie and are published, for whoever loads one."""
    from ratchet.infra.artifacts import ArtifactStore
    from ratchet.trainers.adapters.shelf import Shelf

    return Shelf(s.home, ArtifactStore(s.artifacts) if s.artifacts else None)


def gateway_options(s: Settings) -> GatewayOptions:
    """Say how the gateway behaves."""
    from ratchet.services.gateway.options import GatewayOptions
    from ratchet.services.rules.circuit import Thresholds

    return GatewayOptions(
        placement=placement(s),
        pools={
            pool.base_model: PoolOptions(urls=tuple(pool.urls), provider=pool.kind == "openai", api_key=pool.key)
            for pool in s.pools.values()
        },
        thresholds=Thresholds(**s.circuit.model_dump()),
        copies_wait=s.prioritises,
        upstream_timeout_s=s.upstream_timeout_s,
        mirror_concurrency=s.mirror_concurrency,
        max_body_bytes=s.gateway_max_body_mb * 2**20,
        body_timeout_s=s.gateway_body_timeout_s,
        keep_alive_s=s.gateway_keep_alive_s,
        redaction_salt=s.redaction_salt.get_secret_value(),
        prices=s.prices,
    )


def judges(s: Settings) -> dict[str, JudgeClient]:
    """Make a client of each LLM judge, by name; without any the served base model judges, as ``default``.

    Raises:
        SettingsError: a judge without its model or price, or two of one model: scores could not tell them apart.
    """
    from ratchet.infra.judge import make_judge
    from ratchet.infra.judge_settings import JudgeSettings
    from ratchet.schemas.errors import SettingsError

    made: dict[str, JudgeClient] = {}
    named: dict[str, str] = {}
    for name, one in (s.judges or {"default": JudgeSettings()}).items():
        model = one.model or s.base_model
        if model in named:
            raise SettingsError(
                f"judges.{name}.model: {model!r} is judges.{named[model]}'s; allowed: one judge a model"
            )
        named[model] = name
        made[name] = make_judge(one, s.vllm, s.base_model, name, s.prices.get(model))
    return made


def judge_cache(s: Settings) -> JudgeCache:
    """Open what judges said before of the same content, in ``<home>``.

    Raises:
        StartError: the file cannot be used.
    """
    from ratchet.infra.judge_cache import FILE_NAME, JudgeCache

    return JudgeCache(s.home / FILE_NAME)


def controller(s: Settings, at: Questions, to: KafkaPublisher) -> Controller:
    """Make the rollout controller."""
    from ratchet.infra import clock
    from ratchet.services.controller.canary import Records
    from ratchet.services.controller.controller import Controller
    from ratchet.services.controller.hooks import Hooks
    from ratchet.services.controller.lead import KafkaLead

    return Controller(
        store=at,
        publisher=to,
        replicas=fleet(s),
        placement=placement(s),
        folder=shelf(s).folder,
        tasks=s.tasks,
        clock=clock.now,
        new_id=clock.new_id,
        interval_s=s.control_interval_s,
        copies_wait=s.prioritises,
        unload_after_s=s.unload_after_s,
        hooks=Hooks(s.rollout_hooks, clock.now),
        lead=KafkaLead(s.kafka),
        records=Records(s.home / "canaries"),
    )


def monitor(s: Settings, at: Store, to: KafkaPublisher) -> Monitor:
    """Make drift's monitor."""
    from ratchet.consumers.monitor import Monitor
    from ratchet.infra import clock

    return Monitor(at, to, s.tasks, clock.now)


def vllm_command(s: Settings) -> tuple[list[str], dict[str, str], Callable[[], bool]]:
    """Say how the embedded vLLM is started: command line, environment, and whether it answers.

    Raises:
        StartError: there is no base model, or the port is taken.
    """
    from ratchet.infra.embedded.ports import port_taken
    from ratchet.infra.models.launcher import VllmServer, known_rank
    from ratchet.services.learning import base_model_path

    if port_taken("127.0.0.1", s.embedded.vllm_port):
        raise StartError(f"embedded.vllm_port {s.embedded.vllm_port} is taken; set another")
    rank = known_rank(max((policy.training.lora_r for policy in s.tasks.values()), default=1))
    server = VllmServer(
        model=base_model_path(s), served_name=s.base_model, port=s.embedded.vllm_port, max_lora_rank=rank
    )
    return server.argv(), server.env(os.environ), server.ready


def prepare(s: Settings) -> Prepared:
    """Apply migrations and retention, make topics, and seed state topics that hold nothing."""
    from ratchet.infra.clickhouse import retention as kept
    from ratchet.infra.clickhouse.migrate import migrate
    from ratchet.infra.kafka.admin import ensure_topics
    from ratchet.services.controller.seed import seed_state_topics

    at = store(s)
    to = publisher(s, "ratchet-prepare")
    try:
        applied = migrate(at, cluster=cluster(s))
        kept_now = kept.apply(at, retention(s), cluster(s))
        made = ensure_topics(s.kafka, s.kafka_replication)
        seed_state_topics(at, to, s.kafka)
    finally:
        to.close()
        at.close()
    return Prepared(applied, made, kept_now)


def clickhouse_ready(s: Settings) -> bool:
    """Whether the embedded ClickHouse answers now."""
    try:
        return httpx.get(f"http://127.0.0.1:{s.embedded.clickhouse_port}/ping", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def gateway_ready(s: Settings) -> bool:
    """Whether the gateway says that it is ready."""
    try:
        return httpx.get(f"{s.gateway}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False

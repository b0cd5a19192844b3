"""Settings: ``ratchet.toml`` and ``RATCHET_*``; the only reader of the environment.

Order: environment over file over defaults. With no addresses set, the embedded parts
(broker, ClickHouse, vLLM) of `ratchet up` on this machine are meant.
"""

from __future__ import annotations

import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from ratchet.infra.judge_settings import JudgeSettings
from ratchet.infra.pool_settings import PoolName, PoolSettings, server_address
from ratchet.infra.tracking.settings import TrackingSettings
from ratchet.schemas.alerting import SinkSettings
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.explain import explain
from ratchet.schemas.hooking import HookSettings
from ratchet.schemas.ids import TaskName
from ratchet.schemas.judging import JudgeName
from ratchet.schemas.policies import Retention, TaskPolicy
from ratchet.schemas.pricing import Price

Port = Annotated[int, Field(ge=1, le=65_535)]
CONFIG_FILE = "ratchet.toml"
_ARTIFACTS = re.compile(r"^(?:[a-z][a-z0-9+.-]*://[^\s@?#]+|/[^\x00]*)$")
SECRETS = frozenset({"clickhouse_dsn", "api_key", "redaction_salt", "secret", "token", "url", "urls", "artifacts"})


class Embedded(BaseModel):
    """Ports on loopback of the parts that `ratchet up` starts itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kafka_port: Port = 19092
    clickhouse_port: Port = 18123
    vllm_port: Port = 18000


class CircuitSettings(BaseModel):
    """When the gateway leaves a model server alone, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failures: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="lost, silent or 503, in a row")
    failure_share: Annotated[float, Field(gt=0, le=1)] = Field(0.6, description="of the window, failed in any way")
    minimum: Annotated[int, Field(ge=1)] = Field(10, description="requests in the window before the share counts")
    window_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    cooldown_s: Annotated[float, Field(gt=0, le=3600)] = Field(1.0, description="doubles with each failed trial")
    longest_cooldown_s: Annotated[float, Field(gt=0, le=3600)] = 30.0


class Settings(BaseSettings):
    """Everything that differs between a laptop and production."""

    model_config = SettingsConfigDict(
        env_prefix="RATCHET_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    home: Path = Field(Path(".ratchet"), description="everything Ratchet keeps on this machine")
    kafka_bootstrap: str | None = Field(None, description="None: the embedded broker")
    kafka_idempotence: bool | None = Field(None, description="None: on for a real Kafka, off for the embedded broker")
    kafka_replication: Annotated[int, Field(ge=1, le=9)] = Field(1, description="copies of each new topic")
    clickhouse_dsn: SecretStr | None = Field(None, description="None: the embedded ClickHouse")
    clickhouse_cluster: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")] | None = Field(
        None, description="name in the servers' remote_servers: replicated tables under Distributed ones"
    )
    vllm_urls: Annotated[list[str], NoDecode] = []
    """Addresses of the replicas, in the environment separated by commas; empty: the embedded vLLM."""
    vllm_priority: bool | None = Field(
        None, description="vLLM runs with --scheduling-policy priority; None: the embedded one does, your own does not"
    )
    adapters_per_replica: Annotated[int, Field(ge=1)] | None = Field(
        None, description="more adapters than this are spread over the replicas; None: all of them on every replica"
    )
    adapter_copies: Annotated[int, Field(ge=2)] = Field(2, description="replicas of each adapter once they are spread")
    base_model: str = "smollm2-135m-instruct"
    base_model_path: Path | None = Field(None, description="folder to train on; None: SmolLM2 out of its wheel")
    artifacts: str | None = Field(
        None, description="where adapters are published: a folder or scheme://bucket/prefix, as fsspec has it"
    )
    pools: dict[PoolName, PoolSettings] = Field({}, description="of model servers with other base models")
    prices: dict[Annotated[str, Field(min_length=1, max_length=256)], Price] = {}
    """By the name of a base model, of an adapter or of the judge's model; without a price a cost is unknown."""
    gateway_host: str = "127.0.0.1"
    gateway_port: Port = 8080
    api_host: str = "127.0.0.1"
    api_port: Port = 8081
    """Of the HTTP API for people who run rollouts (`ratchet api`)."""
    flush_interval_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    flood_minimum: Annotated[int, Field(ge=1)] = Field(
        100, description="bad messages within a minute, and more than half of all, from which ingest stops"
    )
    control_interval_s: Annotated[float, Field(gt=0, le=3600)] = 2.0
    unload_after_s: Annotated[float, Field(ge=0)] = Field(
        600.0, description="an adapter that nothing routes to any more stays in the replicas for so long"
    )
    spool_max_mb: Annotated[int, Field(ge=16, le=1_048_576)] = Field(
        1024, description="MiB on disk for the gateway's events that Kafka has not confirmed"
    )
    mirror_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(4, description="shadow requests at once")
    upstream_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    gateway_max_body_mb: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="larger requests get a 413")
    gateway_body_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(30.0, description="slower bodies get a 408")
    gateway_keep_alive_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        75, description="an idle connection is kept; longer than a proxy in front keeps it (often 60 s)"
    )
    redaction_salt: SecretStr = Field(SecretStr(""), description="key of the placeholders, the same for every gateway")
    circuit: CircuitSettings = CircuitSettings()
    embedded: Embedded = Embedded()
    judges: dict[JudgeName, JudgeSettings] = Field(
        {}, description="by name; none: the served base model judges, as `default`"
    )
    rubrics: Path = Field(Path("rubrics"), description="folder of your own rubrics, <name>.vN.md")
    retention: Retention = Field(Retention(), description="of every task that does not say otherwise")
    sinks: dict[TaskName, SinkSettings] = Field({"log": SinkSettings(kind="log")}, description="where alerts go")
    rollout_hooks: dict[TaskName, HookSettings] = Field(
        {}, description="who is asked before a rollout's transitions and told after them"
    )
    tracking: TrackingSettings | None = Field(None, description="where training jobs are runs; None: nowhere")
    tasks: dict[TaskName, TaskPolicy] = {}
    config_dir: Path = Field(Path(), description="folder of ratchet.toml; paths in it are relative to it")

    @model_validator(mode="before")
    @classmethod
    def _paths_are_beside_the_file(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A relative path belongs to ratchet.toml's folder, wherever a process was started."""
        folder = Path(values.get("config_dir") or Path()).absolute()
        paths: dict[str, Any] = {
            key: folder / values[key] for key in ("home", "base_model_path", "rubrics") if values.get(key)
        }
        if isinstance(artifacts := values.get("artifacts"), str) and artifacts and "://" not in artifacts:
            paths["artifacts"] = str(folder / artifacts)
        if isinstance(pools := values.get("pools"), dict):
            paths["pools"] = {
                name: pool | {"base_model_path": folder / pool["base_model_path"]}
                if isinstance(pool, dict) and pool.get("base_model_path")
                else pool
                for name, pool in pools.items()
            }
        return {"home": folder / ".ratchet", "rubrics": folder / "rubrics"} | values | paths | {"config_dir": folder}

    @model_validator(mode="before")
    @classmethod
    def _one_judge_is_called_default(cls, values: dict[str, Any]) -> dict[str, Any]:
        """``[judge]`` is how the file named the only judge before there could be several."""
        if not isinstance(values.get("judge"), dict):
            return values
        judges = dict(values.get("judges") or {})
        judges["default"] = values["judge"] | dict(judges.get("default") or {})
        return {key: value for key, value in values.items() if key != "judge"} | {"judges": judges}

    @field_validator("vllm_urls", mode="before")
    @classmethod
    def _commas(cls, urls: object) -> object:
        return [url.strip() for url in urls.split(",") if url.strip()] if isinstance(urls, str) else urls

    @field_validator("clickhouse_dsn")
    @classmethod
    def _database(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None:
            parts = urlsplit(dsn.get_secret_value())
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path != "/ratchet":
                raise ValueError("allowed is http(s)://[user:password@]host[:port]/ratchet")
        return dsn

    @field_validator("artifacts")
    @classmethod
    def _store(cls, address: str | None) -> str | None:
        if address is not None and not _ARTIFACTS.match(address):
            raise ValueError("allowed: a folder, or scheme://bucket/prefix without a user, a password or a query")
        return address

    @field_validator("vllm_urls")
    @classmethod
    def _http(cls, urls: list[str]) -> list[str]:
        return [server_address(url) for url in urls]

    @model_validator(mode="after")
    def _one_pool_a_base_model(self) -> Settings:
        """An adapter is served where its base model is, so two pools of one could not be told apart."""
        named = {self.base_model: "base_model"}
        for name, pool in self.pools.items():
            if pool.base_model in named:
                raise ValueError(
                    f"pools.{name}.base_model: {pool.base_model!r} is {named[pool.base_model]}'s; allowed: another one"
                )
            named[pool.base_model] = f"pools.{name}"
        for task, policy in self.tasks.items():
            if policy.training.pool is not None and policy.training.pool not in self.pools:
                raise ValueError(
                    f"tasks.{task}.training.pool: {policy.training.pool!r}; allowed: {', '.join(self.pools) or 'none'}"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what `load` read from the file."""
        return env_settings, init_settings

    @cached_property
    def kafka(self) -> str:
        """Bootstrap servers to connect to."""
        return self.kafka_bootstrap or f"127.0.0.1:{self.embedded.kafka_port}"

    @cached_property
    def idempotence(self) -> bool:
        """Whether producers ask for idempotence (the embedded broker knows no InitProducerId)."""
        return self.kafka_bootstrap is not None if self.kafka_idempotence is None else self.kafka_idempotence

    @cached_property
    def clickhouse(self) -> str:
        """ClickHouse's DSN, with its password: never log it."""
        if self.clickhouse_dsn is not None:
            return self.clickhouse_dsn.get_secret_value()
        return f"http://127.0.0.1:{self.embedded.clickhouse_port}/ratchet"

    @cached_property
    def gateway(self) -> str:
        """Where this machine reaches the gateway, without ``/v1``; "every address" is listened on, not called."""
        every = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
        host = every.get(self.gateway_host, self.gateway_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.gateway_port}"

    @cached_property
    def vllm(self) -> list[str]:
        """vLLM replicas' addresses, without ``/v1``."""
        return self.vllm_urls or [f"http://127.0.0.1:{self.embedded.vllm_port}"]

    @cached_property
    def prioritises(self) -> bool:
        """Whether the vLLM replicas schedule by priority, so that mirrored copies can wait behind users' requests."""
        return not self.vllm_urls if self.vllm_priority is None else self.vllm_priority


def load(config: Path | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    Args:
        config: the file; None takes ``$RATCHET_CONFIG`` or ``ratchet.toml`` in the working directory if it is there.
        environ: for messages only (unknown ``RATCHET_*`` names are refused); None means the process's own.
        overrides: values that win over the file (not over the environment).

    Raises:
        SettingsError: names the key, the value and what is allowed.
    """
    env = dict(os.environ) if environ is None else environ
    named = config or (Path(env["RATCHET_CONFIG"]) if "RATCHET_CONFIG" in env else None)
    path = named or Path(CONFIG_FILE)
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not TOML: {error}") from None
    elif named:
        raise SettingsError(f"{path}: no such file; name an existing ratchet.toml")
    _refuse_unknown(env)
    values |= {"config_dir": path.parent} | overrides
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(f"{path if path.is_file() else 'settings'}: {explain(error, SECRETS)}") from None
    except ValueError as error:
        # pydantic-settings reports undecodable JSON in a variable this way
        raise SettingsError(f"settings: {error}") from None


_OWN = {"RATCHET_CONFIG"}


def _refuse_unknown(env: dict[str, str]) -> None:
    for key in env:
        if not key.startswith("RATCHET_") or key in _OWN or key.startswith("RATCHET_TEST_"):
            continue
        field = key.removeprefix("RATCHET_").lower().split("__")[0]
        if field not in Settings.model_fields:
            allowed = ", ".join(f"RATCHET_{name.upper()}" for name in sorted(Settings.model_fields))
            raise SettingsError(f"{key}: no such setting; allowed: {allowed}")

"""Pools of model servers beside the first: each serves one base model and what was trained on it.

The first pool is ``vllm_urls`` with ``base_model``. An adapter is served where its base model is (docs/decisions/038).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

PoolName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class PoolSettings(BaseModel):
    """One pool: vLLM replicas of another base model, or a provider that trains and serves models of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["vllm", "openai"] = "vllm"
    urls: list[str] = Field(min_length=1, description="without /v1; a provider has one")
    base_model: str = Field(min_length=1, max_length=128, description="its served name; of a provider, what it trains")
    base_model_path: Path | None = Field(None, description="folder to train on; vLLM only")
    api_key: SecretStr | None = None
    usd_per_million_trained_tokens: Annotated[float, Field(gt=0)] | None = Field(None, description="at a provider")

    @property
    def key(self) -> str | None:
        """The key itself: never log it."""
        return self.api_key.get_secret_value() if self.api_key else None

    @field_validator("api_key")
    @classmethod
    def _fits_into_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("allowed: printable ASCII without spaces")
        return key

    @field_validator("urls")
    @classmethod
    def _are_addresses(cls, urls: list[str]) -> list[str]:
        return [server_address(url) for url in urls]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> PoolSettings:
        if self.kind == "openai" and len(self.urls) != 1:
            raise ValueError(f"{len(self.urls)} urls; allowed: one for kind 'openai'")
        if self.kind == "openai" and self.base_model_path is not None:
            raise ValueError("base_model_path: a provider has no folder to train on; allowed with kind 'vllm'")
        return self


def server_address(url: str) -> str:
    """A model server's address without a trailing ``/v1``.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        scheme, slashes, rest = url.partition("://")
        shown = f"{scheme}{slashes}{rest.rpartition('@')[2]}"  # without a password
        raise ValueError(f"{shown!r}; allowed: http://host[:port] or https://host[:port]")
    return url.rstrip("/").removesuffix("/v1")

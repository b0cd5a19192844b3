"""What a gateway's operator chooses: every number and switch of it, in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ratchet.schemas.pricing import Price
from ratchet.services.rules.circuit import Thresholds
from ratchet.services.rules.placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """A pool of model servers beside the first.

    Args:
        urls: their addresses, without ``/v1``.
        provider: it is a provider's, which serves what it trained under names of its own.
        api_key: sent as a bearer token.
    """

    urls: tuple[str, ...]
    provider: bool = False
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How a gateway behaves; the defaults suit one model server on the same machine."""

    placement: Placement | None = None
    """Which model servers have which adapter, by their addresses; None: all have all."""
    pools: Mapping[str, PoolOptions] = field(default_factory=lambda: MappingProxyType({}))
    """The other pools, by their base model."""
    thresholds: Thresholds = field(default_factory=Thresholds)
    """When a model server is left alone."""
    copies_wait: bool = False
    """The model servers schedule by priority, so mirrored copies are sent with a low one."""
    upstream_timeout_s: float = 120.0
    """The longest silence of a model server."""
    poll_s: float = 2.0
    """Seconds between looks at the model servers."""
    provider_poll_s: float = 60.0
    """Likewise at a provider, who counts requests."""
    mirror_concurrency: int = 2
    """Copies that run at once."""
    mirror_waiting: int = 256
    """Copies that may wait; more are left out and counted."""
    mirror_bytes: int = 64 * 2**20
    """Of the bodies of all copies that wait or run; more are left out and counted."""
    max_body_bytes: int = 16 * 2**20
    """Larger requests get a 413."""
    body_timeout_s: float = 30.0
    """The most seconds that a request's body may take; then it gets a 408."""
    keep_alive_s: int = 75
    """How long a client's idle connection is kept."""
    keys_poll_s: float = 1.0
    """Seconds between looks at the key file."""
    recent_inferences: int = 100_000
    """How many inferences' tasks are remembered for feedback."""
    recent_feedback: int = 100_000
    """How many feedback ids are remembered for idempotence."""
    redaction_salt: str = field(default="", repr=False)
    """The key of the placeholders' hash; the same in every gateway of an installation."""
    prices: Mapping[str, Price] = field(default_factory=lambda: MappingProxyType({}))
    """By the name of a model or an adapter; a task's own price is in its policy."""

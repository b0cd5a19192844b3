"""Several pools of model servers as one: a request goes where its adapter's base model is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ratchet.infra.http1.reply import Reply
from ratchet.services.gateway.manifests import Manifests
from ratchet.services.gateway.replicas import Replica
from ratchet.services.gateway.upstream import Upstreams

_OURS_ALONE = ("priority",)
"""What vLLM understands and a provider refuses."""


class Servers(Protocol):
    """What the gateway asks of the model servers, be they one pool or several."""

    @property
    def replicas(self) -> Sequence[Replica]:
        """Every replica, as it is now."""

    async def start(self) -> None:
        """Open the clients and begin to watch the replicas."""

    async def close(self) -> None:
        """Stop watching and close every connection."""

    async def refresh(self) -> None:
        """Look at every replica's models now."""

    def models(self) -> set[str]:
        """Every name that some replica served at the last look."""

    def healthy(self) -> bool:
        """Whether some replica answered the last look."""

    def open(self, path: str, body: dict[str, Any], *, last_resort: bool = True) -> AbstractAsyncContextManager[Reply]:
        """Send a request and give its 200 response; see `Upstreams.open`."""


@dataclass(frozen=True, slots=True)
class PoolServers:
    """One pool beside the first.

    Args:
        upstreams: its replicas.
        provider: it is a provider's, with names and limits of its own.
    """

    upstreams: Upstreams
    provider: bool = False


class Pools:
    """The first pool, and the others by their base model.

    Args:
        first: serves whatever belongs to no other pool.
        others: by base model.
        manifests: say which base model an adapter belongs to.
    """

    def __init__(self, first: Upstreams, others: Mapping[str, PoolServers], manifests: Manifests) -> None:
        self._first = first
        self._others = others
        self._manifests = manifests
        self._all = [first, *(pool.upstreams for pool in others.values())]

    @property
    def replicas(self) -> Sequence[Replica]:
        """Every replica of every pool, as it is now."""
        return [replica for upstreams in self._all for replica in upstreams.replicas]

    async def start(self) -> None:
        """Open the clients and begin to watch the replicas."""
        for upstreams in self._all:
            await upstreams.start()

    async def close(self) -> None:
        """Stop watching and close every connection."""
        await asyncio.gather(*(upstreams.close() for upstreams in self._all))

    async def refresh(self) -> None:
        """Look at every replica's models now."""
        await asyncio.gather(*(upstreams.refresh() for upstreams in self._all))

    def models(self) -> set[str]:
        """Every model of ours that some replica served at the last look; a provider's by our name for it."""
        names = set(self._first.models())
        for pool in self._others.values():
            for served in pool.upstreams.models():
                names.update(self._manifests.named(served) if pool.provider else (served,))
        return names

    def healthy(self) -> bool:
        """Whether some replica of the first pool answered the last look: every fallback ends there."""
        return self._first.healthy()

    @asynccontextmanager
    async def open(self, path: str, body: dict[str, Any], *, last_resort: bool = True) -> AsyncIterator[Reply]:
        """Send a request to the pool of its adapter; see `Upstreams.open`."""
        manifest = self._manifests.get(body["model"])
        pool = self._others.get(manifest.base_model) if manifest else None
        upstreams = pool.upstreams if pool else self._first
        if manifest and pool:
            body = {key: value for key, value in body.items() if not (pool.provider and key in _OURS_ALONE)}
            body["model"] = manifest.served_as
        async with upstreams.open(path, body, last_resort=last_resort) as reply:
            yield reply


def base_of(manifests: Manifests, base_model: str) -> Callable[[str], str]:
    """Make the function that says which base model answers for an adapter (or for ``base``)."""

    def base(adapter: str) -> str:
        manifest = manifests.get(adapter)
        return manifest.base_model if manifest else base_model

    return base

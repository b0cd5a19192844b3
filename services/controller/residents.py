"""Which adapters every replica must have in memory, and getting them there before any routing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ratchet.schemas.errors import ModelError
from ratchet.schemas.events import Adapter, Rollout
from ratchet.schemas.ids import BASE
from ratchet.services.rules.rollout import UNDER_WAY


class Replicas(Protocol):
    """The part of the vLLM client that is needed here; its calls block."""

    def models(self) -> Mapping[str, Mapping[str, str]]:
        """What each replica serves, by address; ModelError when one is away."""
        ...

    def load_adapter(self, name: str, path: str) -> None:
        """Load an adapter on every replica that lacks it; ModelError when one refuses or is away."""
        ...


def needed(state: Rollout) -> set[str]:
    """The adapters that a routing table may send a request to, now or at the next flip."""
    names = {name for name in (state.stable, state.previous) if name}
    if state.status in UNDER_WAY and state.candidate:
        names.add(state.candidate)
    return names - {BASE}


def ensure(replicas: Replicas, names: set[str], registry: Mapping[str, Adapter]) -> list[str]:
    """Load adapters wherever a replica lacks them, and see that all replicas confirm them.

    Replicas neither share loads nor keep them over a restart, so this asks each one every time.

    Returns:
        The names that some replica lacked, sorted.

    Raises:
        ModelError: an adapter has no manifest, a replica is away or refuses, or does not serve
            what it said it loaded.
    """
    if not names:
        return []
    lacking = _lacking(replicas.models(), names)
    for name in lacking:
        adapter = registry.get(name)
        if adapter is None:
            raise ModelError(f"{name} is routed to, but the registry has no manifest that says where it lies")
        replicas.load_adapter(name, adapter.path)
    if lacking and (still := _lacking(replicas.models(), set(lacking))):
        raise ModelError(f"loaded, yet not served by every replica: {', '.join(still)}")
    return lacking


def _lacking(served: Mapping[str, Mapping[str, str]], names: set[str]) -> list[str]:
    if not served:
        raise ModelError("no vLLM replica answers")
    return sorted(name for name in names if any(name not in models for models in served.values()))

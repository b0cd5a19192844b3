"""Which adapters the replicas must have in memory, and getting them there before any routing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ratchet.infra.models.answer import Answer
from ratchet.schemas.errors import ModelError
from ratchet.schemas.events import Adapter
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.placement import residents
from ratchet.services.rules.rollouts.waiting import UNDER_WAY, can_supersede, queue


class Replicas(Protocol):
    """The part of the model servers' client that is needed here; its calls block."""

    def models(self, on: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """What each of these replicas serves, by address; ModelError when one is away."""
        ...

    def load_adapter(self, name: str, path: str, on: Collection[str]) -> None:
        """Load an adapter on these replicas where they lack it; ModelError when one refuses or is away."""
        ...

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter wherever it is loaded; ModelError when a replica refuses or is away."""
        ...

    def ask(self, name: str, messages: Sequence[Mapping[str, str]], on: str, max_tokens: int) -> Answer:
        """Ask one replica greedily; ModelError when it refuses or is away."""
        ...


def wanted(task: str, state: Rollout | None, adapters: Iterable[Adapter], most: int = 1) -> frozenset[str]:
    """Name the adapters of a task's routing table, and those, at most ``most``, whose rollout could begin now."""
    names = residents(state) if state else set()
    if state is None or state.status not in UNDER_WAY or can_supersede(state):
        names |= {one.name for one in queue(task, adapters, state)[:most]}
    return frozenset(names)


def ensure(
    replicas: Replicas,
    places: Mapping[str, Collection[str]],
    registry: Mapping[str, Adapter],
    folder: Callable[[Adapter], Path],
) -> dict[str, list[str]]:
    """Load adapters wherever a replica lacks one of its own, and see that all replicas confirm theirs.

    Replicas neither share loads nor keep them over a restart, so this asks each one every time.

    Args:
        replicas: the vLLM servers.
        places: the addresses of the replicas of each adapter.
        registry: manifests, by adapter.
        folder: the folder to load an adapter from, once its files were checked.

    Returns:
        The adapters that some replica lacked, each with those replicas' addresses.

    Raises:
        ModelError: an adapter has no manifest, or other files than were registered; a replica is away or
            refuses, or does not serve what it said it loaded.
    """
    if not places:
        return {}
    lacking = _lacking(replicas, places, registry)
    for name in sorted(lacking):
        adapter = registry.get(name)
        if adapter is None:
            raise ModelError(f"{name} is routed to, but the registry has no manifest that says where it lies")
        if adapter.served_as:
            raise ModelError(f"{name} is {adapter.served_as} at its provider, which does not serve it (any more)")
        replicas.load_adapter(name, str(folder(adapter)), places[name])
    if lacking and (still := _lacking(replicas, {name: places[name] for name in lacking}, registry)):
        raise ModelError(f"loaded, yet not served by every replica: {', '.join(sorted(still))}")
    return lacking


def _lacking(
    replicas: Replicas, places: Mapping[str, Collection[str]], registry: Mapping[str, Adapter]
) -> dict[str, list[str]]:
    """The adapters that some replica of theirs does not serve, and those replicas; no other ones are asked."""
    served = replicas.models(sorted({url for urls in places.values() for url in urls}))

    def called(name: str) -> str:
        adapter = registry.get(name)
        return (adapter.served_as if adapter else "") or name

    found = {name: [url for url in urls if called(name) not in served[url]] for name, urls in places.items()}
    return {name: urls for name, urls in found.items() if urls}

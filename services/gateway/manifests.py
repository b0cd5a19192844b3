"""What the gateway must know of adapters when there are several pools: each one's base model, and its served name."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.schemas.events import Adapter, Event


@dataclass(frozen=True, slots=True)
class Manifest:
    """One adapter: the base model that it belongs to, and what its servers call it."""

    base_model: str
    served_as: str


class Manifests:
    """Manifests by adapter. Written by the tail's thread, read by the event loop (one dict assignment each: atomic)."""

    def __init__(self) -> None:
        """Know no adapter yet."""
        self._known: dict[str, Manifest] = {}

    def apply(self, event: Event) -> None:
        """Take the registry's record of an adapter in."""
        if isinstance(event, Adapter):
            self._known[event.name] = Manifest(event.base_model, event.served_as or event.name)

    def get(self, adapter: str) -> Manifest | None:
        """What is known of an adapter."""
        return self._known.get(adapter)

    def named(self, served_as: str) -> list[str]:
        """The adapters that a server calls so."""
        return [name for name, manifest in self._known.items() if manifest.served_as == served_as]

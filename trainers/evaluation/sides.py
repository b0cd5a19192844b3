"""Who is measured beside whom: the candidate, the stable adapter, and the base model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet.schemas.errors import ModelError, TrainingError
from ratchet.schemas.events import Adapter
from ratchet.trainers.adapters.verifying import verify_placed
from ratchet.trainers.bases import Base, Replicas
from ratchet.trainers.registry import Placed

log = logging.getLogger("ratchet.trainer")


@dataclass(frozen=True, slots=True)
class Side:
    """One column of the matrix: ``name`` says which model, ``served_as`` what its server calls it."""

    name: str
    served_as: str
    base: Base
    folder: Path | None = None
    """An adapter's; None: the base model itself, or a provider's."""
    provided: bool = False
    """A provider's model, which has no weights here."""


def base_side(base: Base) -> Side:
    """The base model alone."""
    return Side(base.model, base.model, base, provided=base.path is None)


def placed_side(placed: Placed, base: Base) -> Side:
    """An adapter that was placed."""
    provided = bool(placed.served_as)
    return Side(placed.name, placed.served_as or placed.name, base, None if provided else placed.folder, provided)


def stable_side(manifest: Adapter, bases: Mapping[str, Base], folder: Callable[[Adapter], Path]) -> Side:
    """The stable adapter, which may be another base model's.

    Args:
        manifest: its manifest.
        bases: where each base model is.
        folder: gives an adapter's verified files.

    Raises:
        TrainingError: no pool has its base model any more.
        AdapterRefused: its files are not those that were registered, or are not to be had.
    """
    name = manifest.name
    base = next((one for one in bases.values() if one.model == manifest.base_model), None)
    if base is None:
        raise TrainingError(f"stable adapter {name}: no pool has its base model {manifest.base_model} any more")
    if manifest.served_as:
        return Side(name, manifest.served_as, base, provided=True)
    return Side(name, name, base, folder(manifest))


async def load_candidate(side: Side, placed: Placed, patience_s: float) -> None:
    """Load a new adapter on every replica of its base model, once its files are seen to be what was trained.

    Raises:
        AdapterRefused: they are not.
        ModelError: it was not loaded within ``patience_s`` seconds.
    """
    if side.base.serving is not None and side.base.serving.replicas is not None:
        await asyncio.to_thread(verify_placed, placed)
        await load(side.base.serving.replicas, placed.name, placed.folder, patience_s)


async def load(replicas: Replicas, name: str, folder: Path, patience_s: float) -> None:
    """Load an adapter; training took long, so a replica that is starting again is waited for.

    Raises:
        ModelError: it was not loaded within ``patience_s`` seconds.
    """
    wait_s, waited = 1.0, 0.0
    while True:
        try:
            return await asyncio.to_thread(replicas.load_adapter, name, folder)
        except ModelError as error:
            if waited >= patience_s:
                raise ModelError(f"{name} is trained but was not loaded: {error}") from error
            log.warning("%s is not loaded yet: %s", name, error)
        await asyncio.sleep(wait_s)
        waited, wait_s = waited + wait_s, min(2 * wait_s, 30.0)

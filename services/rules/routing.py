"""Which adapter answers a request: a pure function of the routing table, the sticky key and the pin.

``bucket = int(sha256(salt ‖ key)) mod 10,000``; a key is the candidate's when its bucket is
below ``weight_bp``. The salt stays for a whole rollout, so the cohorts nest as the weight
grows: nobody who saw the candidate at 5% goes back to stable at 20%.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from ratchet.schemas.events import ServingStage
from ratchet.schemas.ids import BASE
from ratchet.schemas.rollout_events import Rollout

BUCKETS = 10_000
_MIRROR, _ARM = "/mirror", "/arm"
"""Salts of their own: who is mirrored, and to which candidate, says nothing of who is served what."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One try at an answer: the adapter (or ``base``) and the stage that its event reports."""

    adapter: str
    stage: ServingStage


@dataclass(frozen=True, slots=True)
class Route:
    """The tries in their order, and the rollout under way that this request counts for."""

    legs: tuple[Leg, ...]
    rollout_id: str | None = None
    mirror: str | None = None
    """The candidate that gets a copy of the request after the response, if its bucket says so."""


def bucket(salt: str, key: str) -> int:
    """Hash a sticky key into 0–9,999, uniformly and the same everywhere."""
    return int.from_bytes(hashlib.sha256((salt + key).encode()).digest(), "big") % BUCKETS


def sticky_key(user: str | None, conversation_id: str | None, inference_id: str) -> str:
    """Name what a client sticks to an arm by: the user, else the conversation, else this request alone."""
    return user or conversation_id or inference_id


def under_way(table: Rollout | None) -> bool:
    """Say whether a candidate is being tried: only then may it serve, and only then do requests count for it."""
    return table is not None and table.candidate is not None and table.status in ("running", "paused")


def choose(table: Rollout | None, *, key: str, inference_id: str, pinned: str | None = None) -> Route:
    """Choose the adapters to try for one request.

    Args:
        table: the task's routing table; None (nothing was ever rolled out) means the base model.
        key: what the client sticks by, see `sticky_key`.
        inference_id: decides on mirroring, so that retries of one user are not mirrored all or none.
        pinned: an adapter that the client named: it alone is tried, and the request counts for no rollout.
    """
    if pinned is not None:
        return Route((Leg(pinned, "pinned"),))
    stable = table.stable if table is not None else BASE
    if table is None or table.candidate is None or not under_way(table):
        return Route(_chain(Leg(stable, "stable")))
    if bucket(table.salt, key) < table.weight_bp:
        return Route(_chain(Leg(table.candidate, "canary"), stable), table.rollout_id)
    mirrored = bucket(table.salt + _MIRROR, inference_id) < table.mirror_bp
    return Route(_chain(Leg(stable, "stable")), table.rollout_id, _copied_to(table, inference_id) if mirrored else None)


def _copied_to(table: Rollout, inference_id: str) -> str | None:
    """The candidate that gets this copy: one of several by their shares, while they are compared."""
    if not table.arms:
        return table.candidate
    drawn = bucket(table.salt + _ARM, inference_id)
    for adapter, share in sorted(table.arms.items()):
        if drawn < share:
            return adapter
        drawn -= share
    return None


@lru_cache(1024)
def _chain(first: Leg, *others: str) -> tuple[Leg, ...]:
    """The first leg, then each other adapter and the base model as fallbacks, none twice."""
    legs = [first]
    for adapter in (*others, BASE):
        if all(leg.adapter != adapter for leg in legs):
            legs.append(Leg(adapter, "fallback"))
    return tuple(legs)

"""Which replicas an adapter lies on once there are more adapters than one replica holds. Pure.

Rendezvous hashing: every replica draws a number from the adapter's name and its own, and the
highest ones have the adapter. A replica that leaves moves only the adapters that lay on it, and
one that joins takes only those it now draws highest for. The controller loads by this and the
gateway routes by it, each from the same names, without a word between them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ratchet.schemas.ids import BASE
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.routing import under_way

SPARE = 1.5
"""A preferred replica is passed over when it has this many times its fair share of what is in flight."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where adapters lie: each where its base model is.

    Args:
        replicas: the addresses of the first pool, which serves every base model that no other one does.
        per_replica: adapters that one of them holds; None: all of them, whatever their number.
        copies: replicas that have an adapter when they do not all have it.
        pools: the addresses of the other pools, by their base model; every replica there has all its adapters.
    """

    replicas: tuple[str, ...]
    per_replica: int | None = None
    copies: int = 2
    pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def spread(self, adapters: Collection[str]) -> bool:
        """Say whether these adapters of the first pool are too many for one replica, so that each lies on some only."""
        return self.per_replica is not None and len(adapters) > self.per_replica

    def of(self, adapters: Collection[str], bases: Mapping[str, str] | None = None) -> dict[str, tuple[str, ...]]:
        """The replicas of each adapter, preferred ones first where they do not all have it.

        Args:
            adapters: names.
            bases: their base models; one that is not named is in the first pool.
        """
        elsewhere = {
            adapter: self.pools[base]
            for adapter in adapters
            if (base := (bases or {}).get(adapter)) is not None and base in self.pools
        }
        here = [adapter for adapter in adapters if adapter not in elsewhere]
        if not self.spread(here):
            return elsewhere | dict.fromkeys(here, self.replicas)
        return elsewhere | {adapter: ranking(adapter, self.replicas)[: self.copies] for adapter in here}


@lru_cache(maxsize=4096)
def ranking(adapter: str, replicas: tuple[str, ...]) -> tuple[str, ...]:
    """Order replicas for an adapter, the most preferred first: the same everywhere and in any order of theirs."""

    def drawn(replica: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"{adapter}\0{replica}".encode()).digest(), replica

    return tuple(sorted(replicas, key=drawn, reverse=True))


def within_bound(loads: Sequence[int]) -> int:
    """Choose among replicas in the order of preference: the first that is not clearly more loaded than its share.

    Consistent hashing with bounded loads: one that has `SPARE` times its fair share already is passed over.

    Args:
        loads: requests in flight, in the order of preference; at least one.

    Returns:
        The index of the chosen one.
    """
    bound = math.ceil(SPARE * (sum(loads) + 1) / len(loads))
    return next(index for index, load in enumerate(loads) if load < bound)


def residents(table: Rollout) -> set[str]:
    """Name the adapters that a routing table may send a request to, now or at the next flip."""
    names = {name for name in (table.stable, table.previous) if name}
    if under_way(table) and table.candidate:
        names |= {table.candidate, *table.arms}
    return names - {BASE}

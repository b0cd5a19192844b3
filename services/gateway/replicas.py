"""The model servers as far as choosing one goes: who is asked next, and what came of it.

Every replica has a circuit (`rules/circuit.py`), which alone says whether it is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ratchet.infra.models.vllm import address
from ratchet.services.rules import circuit as rules
from ratchet.services.rules.circuit import CLOSED, Circuit, State, Thresholds
from ratchet.services.rules.placement import within_bound

log = logging.getLogger("ratchet.gateway")
_MOST_LACKING = 1024


@dataclass(slots=True, eq=False)
class Replica:
    """One model server and what is known of it."""

    url: str
    name: str = field(init=False)
    """Its address without credentials: for logs, events and metrics."""
    in_flight: int = 0
    healthy: bool = False
    """It answered the last look at its models; requests go by its circuit instead."""
    models: frozenset[str] = frozenset()
    lacking: set[str] = field(default_factory=set)
    """What it said that it does not have (it was restarted, say), and no look has shown since."""
    circuit: Circuit = CLOSED
    last_used: int = 0

    def __post_init__(self) -> None:
        """Derive the name."""
        self.name = address(self.url)


class Sent:
    """One request on its way to a replica: in flight until `end`, its outcome noted at most once."""

    __slots__ = ("_all", "_period", "replica")

    def __init__(self, replicas: Replicas, replica: Replica, period: int) -> None:
        """Count it as in flight; ``period`` is the circuit's when it was sent."""
        replica.in_flight += 1
        self._all = replicas
        self._period: int | None = period
        self.replica = replica

    def answered(self) -> None:
        """Note that the replica answered, if only to say that the request is wrong."""
        if self._period is not None:
            self._all.change(self.replica, rules.succeeded, self._period, self._all.now(), self._all.thresholds)
            self._period = None

    def failed(self, *, whole: bool) -> None:
        """Note a failure; ``whole``: of the replica and not perhaps of one adapter."""
        if self._period is not None:
            self._all.fail(self.replica, self._period, whole=whole)
            self._period = None

    def end(self) -> None:
        """Count it as in flight no more; without an outcome (the client left) it says nothing of the replica."""
        self.replica.in_flight -= 1
        if self._period is not None:
            self._all.change(self.replica, rules.given_up, self._period, self._all.now())
            self._period = None


class Replicas:
    """All model servers.

    Args:
        urls: addresses without ``/v1``.
        now: seconds that only grow.
        thresholds: when a circuit opens.
        jitter: draws a number from 0 to 1 for each cool-down.
        preference: the order in which replicas are preferred for a model, by their addresses as
            given; None where they are all the same to it.
        on_change: told a replica's name and its circuit's new state.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        now: Callable[[], float],
        thresholds: Thresholds,
        jitter: Callable[[], float],
        preference: Callable[[str], Sequence[str] | None],
        on_change: Callable[[str, State], None],
    ) -> None:
        self.all = [Replica(url.rstrip("/")) for url in urls]
        self.now = now
        self.thresholds = thresholds
        self._jitter = jitter
        self._preference = preference
        self._on_change = on_change
        self._uses = 0

    def send(self, model: str, without: set[str], *, last_resort: bool) -> Sent | None:
        """Choose a replica for one request and count the request as sent to it.

        Those whose circuit takes requests come first, then those that have the adapter; among
        equals the least loaded, or by preference within the bound where adapters lie on some
        replicas only.

        Args:
            model: the adapter's or the base model's served name.
            without: addresses that failed this request already.
            last_resort: where no circuit takes requests, choose the one whose trial is due soonest.

        Returns:
            None where nobody is left; a replica that lacks the model is never asked.
        """
        now = self.now()
        chosen = (
            self._only(model, now, without, last_resort)
            if len(self.all) == 1
            else self._best(model, now, without, last_resort)
        )
        if chosen is None:
            return None
        self._uses += 1
        chosen.last_used = self._uses
        self.change(chosen, rules.sent, now)
        return Sent(self, chosen, chosen.circuit.period)

    def _only(self, model: str, now: float, without: set[str], last_resort: bool) -> Replica | None:
        only = self.all[0]  # most installations have one, and ranking it takes 8 µs
        if only.url in without or model in only.lacking:
            return None
        return only if last_resort or rules.takes(only.circuit, now) else None

    def _best(self, model: str, now: float, without: set[str], last_resort: bool) -> Replica | None:
        ranked = [
            ((*rules.badness(r.circuit, now), bool(r.models) and model not in r.models), r)
            for r in self.all
            if r.url not in without and model not in r.lacking and (last_resort or rules.takes(r.circuit, now))
        ]
        if not ranked:
            return None
        best = min(key for key, _ in ranked)
        equals = [replica for key, replica in ranked if key == best]
        preferred = self._preference(model)
        if preferred is None:
            return min(equals, key=lambda r: (r.in_flight, r.last_used))
        equals.sort(key=lambda r: preferred.index(r.url))
        return equals[within_bound([r.in_flight for r in equals])]

    def seen(self, replica: Replica, models: frozenset[str]) -> None:
        """Note that a replica listed its models: where it did not before, its next trial is due now.

        That alone closes no circuit: a server whose engine died still lists its models.
        """
        if not replica.healthy:
            log.info("model server %s is up with %d models", replica.name, len(models))
            self.change(replica, rules.hurried, self.now())
        replica.healthy, replica.models = True, models
        replica.lacking -= models

    def lacks(self, replica: Replica, model: str) -> None:
        """Note that a replica said it does not have a model: it is not asked for it until a look shows it."""
        if len(replica.lacking) < _MOST_LACKING:  # anybody may ask for names without end
            replica.lacking.add(model)

    def nobody_has(self, model: str) -> bool:
        """Whether every replica said that it does not have a model."""
        return all(model in replica.lacking for replica in self.all)

    def missed(self, replica: Replica, reason: str) -> None:
        """Note that a replica did not list its models: a failure like any other of its own."""
        if replica.healthy:
            log.warning("model server %s is down: %s", replica.name, reason)
        replica.healthy = False
        if replica.circuit.state == "closed":
            self.fail(replica, replica.circuit.period, whole=True)

    def fail(self, replica: Replica, period: int, *, whole: bool) -> None:
        """Note a failure of a request that was sent in ``period``."""
        after = rules.failed(replica.circuit, period, self.now(), self.thresholds, whole=whole, jitter=self._jitter())
        self._become(replica, after)

    def change(self, replica: Replica, rule: Callable[..., Circuit], *arguments: object) -> None:
        """Apply one of the circuit's rules."""
        self._become(replica, rule(replica.circuit, *arguments))

    def _become(self, replica: Replica, after: Circuit) -> None:
        before, replica.circuit = replica.circuit.state, after
        if after.state == before:
            return
        self._on_change(replica.name, after.state)
        if after.state == "open":
            log.warning("model server %s: left alone for %.1f s", replica.name, max(0.0, after.until - self.now()))
        elif after.state == "closed":
            log.warning("model server %s: takes requests again", replica.name)

"""Getting adapters where they are needed, and seeing that they answer there, before anything is routed to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path

from ratchet.schemas.errors import ModelError
from ratchet.schemas.events import Adapter
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.controller.canary import Canary
from ratchet.services.controller.known import Known
from ratchet.services.controller.residents import Replicas, ensure, wanted
from ratchet.services.controller.troubles import Troubles
from ratchet.services.controller.unloading import Unloading
from ratchet.services.rules.placement import Placement

log = logging.getLogger("ratchet.controller")


class Residency:
    """Which adapters all of their replicas have, and answer as.

    Args:
        known: what the topics told.
        replicas: every vLLM replica.
        placement: which of them have which adapter.
        folder: the folder to load an adapter from, once its files were checked.
        tasks: the declared tasks.
        canary: asks each replica before it counts.
        unloading: takes out what nothing routes to any more.
        troubles: says what is away.
    """

    def __init__(
        self,
        known: Known,
        replicas: Replicas,
        placement: Placement,
        folder: Callable[[Adapter], Path],
        tasks: Mapping[str, TaskPolicy],
        canary: Canary,
        unloading: Unloading,
        troubles: Troubles,
    ) -> None:
        self._known, self._replicas, self._placement, self._folder = known, replicas, placement, folder
        self._tasks, self._canary, self._unloading, self._troubles = tasks, canary, unloading, troubles
        self._resident: dict[str, frozenset[str]] = {}
        self._asked_for: list[str] = []
        self._one_at_a_time = asyncio.Lock()  # so that what a person has loaded is not taken out meanwhile

    def of(self, task: str) -> frozenset[str]:
        """The adapters of a task that were confirmed when they were last looked at."""
        return self._resident.get(task, frozenset())

    def forget(self) -> None:
        """Somebody else sees to it now: nothing is confirmed."""
        self._resident.clear()

    async def reconcile(self, now: datetime) -> None:
        """Load what a replica lacks of the adapters that tables name or that wait; unload what is left over."""
        needs = self._needs()
        for task, names in needs.items():
            async with self._one_at_a_time:
                try:
                    loaded = await asyncio.to_thread(self._confirm, names, now)
                except ModelError as error:
                    self._resident[task] = frozenset()
                    self._troubles.say(f"vLLM for {task}", f"{task}: no rollout starts or advances: {error}")
                    continue
            self._troubles.clear(f"vLLM for {task}")
            self._resident[task] = names
            if loaded:
                log.info("%s: loaded where a replica lacked it: %s", task, ", ".join(sorted(loaded)))
        async with self._one_at_a_time:
            everything = frozenset(self._asked_for).union(*needs.values())
            await self._unloading.run(everything, list(self._known.states.values()), now)

    async def load(self, names: Collection[str], now: datetime) -> str | None:
        """Load adapters that a person asked for, and see that they answer; why that failed, or None."""
        self._asked_for += names
        try:
            async with self._one_at_a_time:
                await asyncio.to_thread(self._confirm, names, now)
        except ModelError as error:
            return str(error)
        finally:
            for name in names:
                self._asked_for.remove(name)
        return None

    def _confirm(self, names: Collection[str], now: datetime) -> Mapping[str, Collection[str]]:
        adapters = dict(self._known.adapters)
        every = frozenset(names).union(*self._needs().values())
        places = self._placement.of(every, {name: adapters[name].base_model for name in every if name in adapters})
        here = {name: places[name] for name in names}
        loaded = ensure(self._replicas, here, adapters, self._folder)
        for name, anew in loaded.items():
            self._canary.forget(name, anew)
        for name, urls in here.items():
            manifest = adapters.get(name)
            # a provider's is its own to warm up, and bills every request
            if manifest is None or not manifest.served_as:
                self._canary.check(name, urls, now)
        return loaded

    def _needs(self) -> dict[str, frozenset[str]]:
        adapters = list(self._known.adapters.values())
        most = {task: policy.rollout.best_arm.candidates for task, policy in self._tasks.items()}
        states = dict(self._known.states)
        return {task: wanted(task, states.get(task), adapters, most.get(task, 1)) for task in {*self._tasks, *states}}

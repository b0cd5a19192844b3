"""From a rollout's evidence to the next decision on it: gathered in ClickHouse, decided by the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from ratchet.consumers.calibration import Questions
from ratchet.schemas.errors import StoreError
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.controller.flips import Flips
from ratchet.services.controller.observe import observe
from ratchet.services.controller.pace import Pace
from ratchet.services.controller.troubles import Troubles
from ratchet.services.rules.rollouts.deciding import Decision, decide


class Judge:
    """Decides on rollouts that are under way.

    Args:
        store: ClickHouse.
        flips: what gateways acknowledge.
        troubles: says that ClickHouse is away.
        clock: the present instant.
        copies_wait: mirrored copies wait behind users' requests, so their latency is no evidence.
    """

    def __init__(
        self, store: Questions, flips: Flips, troubles: Troubles, clock: Callable[[], datetime], copies_wait: bool
    ) -> None:
        self._store, self._flips, self._troubles = store, flips, troubles
        self._clock, self._copies_wait = clock, copies_wait
        self._pace = Pace()

    async def decision(self, state: Rollout, policy: TaskPolicy, now: datetime) -> Decision | None:
        """Look at a rollout and decide; None while its task rests from the last look, or ClickHouse is away."""
        if not self._pace.due(state.task, now):
            return None
        waiting, since = self._flips.waiting_for(state, now), self._clock()
        try:
            evidence = await asyncio.to_thread(observe, self._store, state, policy, now, self._copies_wait, waiting)
        except StoreError as error:
            self._troubles.say("ClickHouse", f"nothing is decided without ClickHouse: {error}")
            return None
        self._troubles.clear("ClickHouse")
        self._pace.took(state.task, since, self._clock())
        return decide(state, evidence, policy.rollout, now)

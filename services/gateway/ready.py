"""Whether the gateway can serve: what it cannot do without, and what may be away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ratchet.services.gateway.metrics import Metrics

Checks = Mapping[str, Callable[[], bool]]
_LOOK_S = 2.0


class Readiness:
    """What `/readyz` says.

    A probe gives up after a second, and asking Kafka may take as long: so what may be away is
    looked at in the background, and only what is known at once is asked for an answer.
    """

    def __init__(self, needed: Checks, wanted: Checks, metrics: Metrics) -> None:
        """Take the checks, by the names of what is missing where they fail.

        Args:
            needed: without one of these the gateway cannot serve; they answer at once.
            wanted: events wait on disk while one of these is away; they may block, in a thread.
            metrics: shows each of them.
        """
        self._needed = needed
        self._wanted = wanted
        self._metrics = metrics
        self.away: list[str] = []
        """What was away of ``wanted`` at the last look."""

    def missing(self) -> list[str]:
        """Name what is needed and not there now."""
        present = {name: check() for name, check in self._needed.items()}
        for name, there in present.items():
            self._metrics.parts.labels(name).set(there)
        return [name for name, there in present.items() if not there]

    async def follow(self) -> None:
        """Look at everything every few seconds, for ever."""
        while True:
            self.missing()
            present = {name: await asyncio.to_thread(check) for name, check in self._wanted.items()}
            for name, there in present.items():
                self._metrics.parts.labels(name).set(there)
            self.away = [name for name, there in present.items() if not there]
            await asyncio.sleep(_LOOK_S)

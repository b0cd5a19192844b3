"""Whether the gateway can serve: what it cannot do without, and what may be away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ratchet.services.gateway.metrics import Metrics

Checks = Mapping[str, Callable[[], bool]]
Silences = Mapping[str, Callable[[], float]]
SILENT_S = 15.0
"""After so long without a word from Kafka what a follower knows may be old; a quiet one hears every three seconds."""
_LOOK_S = 2.0


class Readiness:
    """What `/readyz` says.

    A probe gives up after a second, and asking Kafka may take as long: so what may be away is
    looked at in the background, and only what is known at once is asked for an answer.
    """

    def __init__(self, needed: Checks, wanted: Checks, silences: Silences, metrics: Metrics) -> None:
        """Take the checks, by the names of what is missing where they fail.

        Args:
            needed: without one of these the gateway cannot serve; they answer at once.
            wanted: events wait on disk while one of these is away; they may block, in a thread.
            silences: for how many seconds each follower of a topic has heard nothing of Kafka; one that is silent for
                too long is away, because what it knows may be old.
            metrics: shows each of them.
        """
        self._needed = needed
        self._wanted = wanted
        self._silences = silences
        self._metrics = metrics
        self.away: list[str] = []
        """What was away of ``wanted`` at the last look."""

    def missing(self) -> list[str]:
        """Name what is needed and not there now."""
        present = {name: check() for name, check in self._needed.items()}
        for name, there in present.items():
            self._metrics.parts.labels(name).set(there)
        return [name for name, there in present.items() if not there]

    def silent_s(self) -> dict[str, float]:
        """For how many seconds each follower of a topic has heard nothing: so old may be what it knows."""
        return {name: round(silence(), 1) for name, silence in self._silences.items()}

    async def follow(self) -> None:
        """Look at everything every few seconds, for ever."""
        while True:
            self.missing()
            present = {name: await asyncio.to_thread(check) for name, check in self._wanted.items()}
            present |= {f"news of {name}": silence() < SILENT_S for name, silence in self._silences.items()}
            for name, there in present.items():
                self._metrics.parts.labels(name).set(there)
            self.away = [name for name, there in present.items() if not there]
            await asyncio.sleep(_LOOK_S)

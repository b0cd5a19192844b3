"""Group ``tracking``: every training job as a run of an experiment tracker.

It reads `ratchet.training` like any other consumer, so a tracker that is away holds up no training and loses no figure:
its events wait in Kafka, and are told when it is back. A job that is started again goes on in the same run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ratchet.infra.tracking.tracker import Status, Tracker
from ratchet.schemas.events import Event, Training
from ratchet.schemas.topics import TRAINING

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker

    from ratchet.infra.kafka.publisher import Publisher

GROUP = "tracking"
ENDED: dict[str, Status] = {"finished": "finished", "failed": "failed", "cancelled": "killed"}
KNOWN_RUNS = 256
"""Whose ids are remembered; an older job's is asked for again."""


class Tracking:
    """Tells a tracker what becomes of training jobs.

    Args:
        tracker: whichever.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._runs: dict[str, str] = {}

    async def handle(self, event: Event) -> None:
        """Tell of one event; decisions that train nothing are passed over.

        Raises:
            TrackingError: the tracker is away or refuses; the event is to be told again.
        """
        if isinstance(event, Training) and event.state in ("started", "progress", *ENDED):
            await asyncio.to_thread(self._tell, event)

    def _tell(self, event: Training) -> None:
        run = self._run(event)
        if event.metrics:
            self._tracker.log(run, event.metrics, event.step or int(event.metrics.get("steps", 0)), event.at)
        if event.state in ENDED:
            tags = {"adapter": event.adapter, "dataset": event.dataset, "reason": event.reason}
            told = {f"ratchet.{name}": value for name, value in tags.items() if value}
            self._tracker.end(run, ENDED[event.state], event.at, params(event.params), told)
            self._runs.pop(event.job_id, None)

    def _run(self, event: Training) -> str:
        if event.job_id not in self._runs:
            tags = {"ratchet.task": event.task, "ratchet.method": event.method, "ratchet.trigger": event.trigger}
            if event.dataset:
                tags["ratchet.dataset"] = event.dataset
            while len(self._runs) >= KNOWN_RUNS:
                self._runs.pop(next(iter(self._runs)))
            name = f"{event.task} {event.job_id}"
            self._runs[event.job_id] = self._tracker.run(event.job_id, name, event.at, tags)
        return self._runs[event.job_id]


def params(recipe: Mapping[str, Any]) -> dict[str, str]:
    """A recipe as texts: what is a list or a table becomes JSON, what is not set is left out."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for name, value in recipe.items()
        if value is not None
    }


def register(broker: KafkaBroker, tracking: Tracking, publisher: Publisher) -> None:
    """Subscribe to `ratchet.training`; the broker is not started yet."""
    from ratchet.infra.kafka.stream import subscribe

    subscribe(broker, TRAINING, GROUP, tracking.handle, publisher)

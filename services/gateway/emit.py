"""Events on their way out: redacted, handed to the publisher, counted, and never in the user's way."""

from __future__ import annotations

import logging

from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event
from ratchet.schemas.topics import route
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.redact import EventRedactor

log = logging.getLogger("ratchet.gateway")


class Emitter:
    """Redacts, publishes and counts; an event that the publisher refuses is dropped visibly.

    It alone has the publisher, so nothing goes to Kafka as the user wrote it.
    """

    def __init__(self, publisher: Publisher, metrics: Metrics, redact: EventRedactor) -> None:
        """Publish by ``publisher``, which never blocks, what ``redact`` leaves of each event."""
        self._publisher = publisher
        self._redact = redact
        self._metrics = metrics

    def offer(self, event: Event) -> None:
        """Hand over an event whose sender waits for the answer and can send it again.

        Raises:
            BrokerError: the queue or the spool is full; nothing was taken.
            InvalidEvent: the event is larger than Kafka takes.
        """
        self._publisher.publish(self._redact(event))
        self._metrics.published_of(_topic(event)).inc()

    def emit(self, event: Event) -> None:
        """Hand over an event that nobody waits for; one that is not taken is dropped, and counted."""
        try:
            self.offer(event)
        except (BrokerError, InvalidEvent) as error:
            self._metrics.dropped.labels(_topic(event)).inc()
            log.warning("an event for %s was dropped: %s", _topic(event), error)

    def waiting(self) -> int:
        """Produce again what was not delivered, and return how many events still wait."""
        left = self._publisher.flush(0.0)
        self._metrics.waiting.set(left)
        return left

    def flush(self, timeout_s: float) -> int:
        """Wait for deliveries; returns how many events are still undelivered."""
        return self._publisher.flush(timeout_s)


def _topic(event: Event) -> str:
    return route(event)[0].name.removeprefix("ratchet.")

"""Events on their way out: redacted, priced, handed to the publisher, counted, and never in the user's way."""

from __future__ import annotations

import logging

from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Event, Inference, Shadow
from ratchet.schemas.topics import route
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.redact import EventRedactor
from ratchet.services.rules.cost import PriceList

log = logging.getLogger("ratchet.gateway")


class Emitter:
    """Redacts, prices, publishes and counts; an event that the publisher refuses is dropped visibly.

    It alone has the publisher, so nothing goes to Kafka as the user wrote it.
    """

    def __init__(self, publisher: Publisher, metrics: Metrics, redact: EventRedactor, prices: PriceList) -> None:
        """Publish by ``publisher``, which never blocks, what ``redact`` leaves of each event, with its cost."""
        self._publisher = publisher
        self._redact = redact
        self._prices = prices
        self._metrics = metrics

    def offer(self, event: Event) -> None:
        """Hand over an event whose sender waits for the answer and can send it again.

        Raises:
            BrokerError: the queue or the spool is full; nothing was taken.
            InvalidEvent: the event is larger than Kafka takes.
        """
        self._publish(self._prices.price(event))

    def emit(self, event: Event) -> None:
        """Hand over an event that nobody waits for; one that is not taken is dropped, and counted."""
        event = self._prices.price(event)
        if isinstance(event, Inference | Shadow) and event.cost_usd:
            # The gateway's own calls alone: their tasks and adapters are few. They cost it, stored or not.
            self._metrics.cost.labels(event.task, event.adapter, event.stage).inc(event.cost_usd)
        try:
            self._publish(event)
        except (BrokerError, InvalidEvent) as error:
            self._metrics.dropped.labels(_topic(event)).inc()
            log.warning("an event for %s was dropped: %s", _topic(event), error)

    def _publish(self, event: Event) -> None:
        self._publisher.publish(self._redact(event))
        self._metrics.published_of(_topic(event)).inc()

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

"""Straight to Kafka's topics, for apps beside the broker. Nothing is redacted on this way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratchet.infra import clock
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Feedback, Inference
from ratchet.schemas.ids import hash_user
from ratchet.schemas.topics import route
from ratchet.services.rules.sending import Outcome, Parcel, fit
from ratchet.services.sending.events import checked, encoded
from ratchet.services.sending.outbox import BATCH_BYTES

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from ratchet.infra.kafka.publisher import KafkaPublisher

_DELIVERY_S = 10.0


class Kafka:
    """Packs events for their topics and makes producers."""

    source = "kafka"

    def __init__(self, bootstrap: str, tenant: str) -> None:
        """Name the brokers.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            tenant: whose events these are.

        Raises:
            ImportError: confluent-kafka is not installed.
        """
        try:
            import confluent_kafka  # noqa: F401 - asked for here, so that the app hears of it and not a thread
        except ImportError:
            raise ImportError(
                "events to Kafka need confluent-kafka, which the plain install leaves out: pip install 'ratchet[kafka]'"
            ) from None
        self._bootstrap = bootstrap
        self._tenant = tenant

    def event(self, event: Inference | Feedback) -> Parcel:
        """Pack a whole event; a tenant that was not named is this client's."""
        if "tenant" not in event.model_fields_set:
            event = event.model_copy(update={"tenant": self._tenant})
        topic, key = route(event)
        return Parcel(event.id, topic.name, encoded(event), key)

    def feedback(self, said: Mapping[str, Any]) -> Parcel:
        """Pack feedback as its event; there is no gateway on this way to know the task.

        Raises:
            InvalidEvent: names the field.
        """
        if "task" not in said:
            raise InvalidEvent("task: missing; allowed: a task's name here, or as the client's own")
        user = {"user": hash_user(said["user"])} if isinstance(said.get("user"), str) else {}
        return self.event(checked(Feedback, dict(said) | user | {"at": clock.now(), "source": self.source}))

    def connect(self) -> KafkaLink:
        """Make a producer. The broker drops no repeats for it: rows are idempotent by the events' ids anyway."""
        from ratchet.infra.kafka.publisher import KafkaPublisher

        return KafkaLink(
            lambda settled: KafkaPublisher(
                self._bootstrap, False, "ratchet-client", delivery_timeout_s=_DELIVERY_S, settled=settled
            )
        )


class KafkaLink:
    """A producer that is asked for a word on each record of a batch."""

    def __init__(self, make: Callable[[Callable[[int, KafkaError | None], None]], KafkaPublisher]) -> None:
        """Make the producer by ``make``, which gets what hears of each record's end."""
        self._ended = threading.Condition()
        self._ends: dict[int, KafkaError | None] = {}
        self._publisher = make(self._settled)

    def _settled(self, number: int, error: KafkaError | None) -> None:
        with self._ended:
            self._ends[number] = error
            self._ended.notify_all()

    def fit(self, waiting: deque[Parcel], most: int) -> int:
        """Count the front that goes in one batch, whatever its topics."""
        return fit((len(parcel.body) for parcel in waiting), most, BATCH_BYTES)

    def deliver(self, batch: Sequence[Parcel]) -> Outcome:
        """Produce a batch and wait for each record's end: Kafka's word comes within the delivery timeout."""
        from ratchet.infra.kafka.publisher import REFUSED_FOR_GOOD

        with self._ended:
            self._ends.clear()
        refused: dict[int, str] = {}
        again: list[int] = []
        problem = ""
        sent = 0
        for number, parcel in enumerate(batch):
            try:
                self._publisher.send(parcel.to, parcel.key.encode(), parcel.body, number)
                sent += 1
            except InvalidEvent as error:
                refused[number] = str(error)
            except BrokerError as error:
                again.append(number)
                problem = str(error)
        with self._ended:
            self._ended.wait_for(lambda: len(self._ends) >= sent)
            failed = {number: error for number, error in self._ends.items() if error is not None}
        for number, failure in failed.items():
            if failure.code() in REFUSED_FOR_GOOD:
                refused[number] = f"Kafka: {failure.str()}"
            else:
                again.append(number)
                problem = f"Kafka: {failure.str()}"
        return Outcome(tuple(sorted(again)), refused, problem)

    def close(self) -> None:
        """Let go of the producer."""
        self._publisher.close(0.0)

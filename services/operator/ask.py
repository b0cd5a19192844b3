"""A person's word to the rollout controller, and its answer: the one way for the command line and the HTTP API."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ratchet.infra.kafka.tail import Tail
from ratchet.infra.settings import Settings
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.schemas.topics import ROLLOUT
from ratchet.services import wiring

WAIT_S = 15.0


@dataclass(frozen=True)
class Answer:
    """What came of an instruction: the routing table that answers it, None where no controller did in time."""

    asked: Operator
    waited_s: float
    table: Rollout | None

    @property
    def refused(self) -> bool:
        """Whether the controller did not follow it; the table's reason says why."""
        return self.table is not None and self.table.action == "refuse"

    @property
    def silence(self) -> str:
        """What to say where nobody answered."""
        return (
            f"no controller answered within {self.waited_s:g} s; {self.asked.verb} stays on the topic and is "
            "followed when one runs"
        )


def ask(settings: Settings, asked: Operator, wait_s: float = WAIT_S) -> Answer:
    """Publish an instruction and wait for the routing table that answers it; blocks.

    Args:
        settings: whose Kafka.
        asked: the instruction.
        wait_s: seconds for the answer.

    Raises:
        BrokerError: Kafka is away: the instruction was not given.
    """
    answered = threading.Event()
    answers: list[Rollout] = []

    def take(event: Event) -> None:
        if isinstance(event, Rollout) and event.operator_seen == asked.id and not answers:
            answers.append(event)
            answered.set()

    publisher = wiring.publisher(settings, "ratchet-rollout")
    tail = Tail(settings.kafka, ROLLOUT, take)
    try:
        publisher.publish(asked)
        if publisher.flush(wait_s):
            raise BrokerError(f"Kafka at {settings.kafka} did not take the instruction within {wait_s:g} s")
        tail.start()
        answered.wait(wait_s)
    finally:
        tail.close()
        publisher.close()
    return Answer(asked, wait_s, answers[0] if answers else None)

"""One table of all topics: name, events carried, key, partitions, compaction, consumer groups."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.schemas.events import Adapter, DeadLetter, Event, Feedback, Inference, Score, Shadow, Training
from ratchet.schemas.monitoring_events import Alert, Drift
from ratchet.schemas.rollout_events import Gateway, Operator, Rollout

Partition = tuple[str, int]
"""A topic's name and the number of one of its partitions."""


@dataclass(frozen=True)
class Topic:
    """A Kafka topic of the loop.

    ``key`` says which field orders the events; ``groups`` are the consumer groups that read it. Of a ``brief``
    topic only each key's newest event matters: Kafka lets go of what is older than a day, and of keys that are gone.
    """

    name: str
    events: tuple[str, ...]
    key: str
    partitions: int
    compacted: bool
    groups: tuple[str, ...]
    about: str
    brief: bool = False

    @property
    def policy(self) -> tuple[str, ...]:
        """Kafka's ``cleanup.policy``."""
        if not self.compacted:
            return ("delete",)
        return ("compact", "delete") if self.brief else ("compact",)


INFERENCE = Topic(
    "ratchet.inference",
    ("inference.v1",),
    "conversation_id or id",
    6,
    False,
    ("ingest", "checks", "judge"),
    "every production request and its answer",
)
FEEDBACK = Topic(
    "ratchet.feedback",
    ("feedback.v1",),
    "inference_id or conversation_id",
    6,
    False,
    ("ingest", "pairs"),
    "what users and apps say of an answer",
)
SHADOW = Topic(
    "ratchet.shadow",
    ("shadow.v1",),
    "inference_id",
    6,
    False,
    ("ingest", "checks", "judge"),
    "the candidate's answers to copies of production requests",
)
SCORE = Topic("ratchet.score", ("score.v1",), "target_id", 6, False, ("ingest",), "verdicts of checks and judges")
TRAINING = Topic(
    "ratchet.training",
    ("training.v1",),
    "task",
    6,  # a job holds its partition for hours: few tasks wait behind another one's
    False,
    ("ingest", "trainer", "tracking"),
    "decisions to train, progress and results",
)
ADAPTER = Topic("ratchet.adapter", ("adapter.v1",), "name", 1, True, ("ingest", "controller"), "the adapter registry")
ROLLOUT = Topic(
    "ratchet.rollout",
    ("rollout.v1", "operator.v1"),
    "task",
    1,
    True,
    ("ingest", "controller", "hook-<name>", "every gateway, from the beginning, without a group"),
    "routing tables and operators' instructions",
)
GATEWAY = Topic(
    "ratchet.gateway",
    ("gateway.v1",),
    "gateway",
    1,
    True,
    ("ingest", "controller, from the beginning, without a group"),
    "which routing tables each gateway has in force, said every few seconds",
    brief=True,
)
DRIFT = Topic(
    "ratchet.drift", ("drift.v1",), "task", 1, False, ("ingest",), "what each rule says of each metric, hour by hour"
)
ALERT = Topic("ratchet.alert", ("alert.v1",), "id", 1, False, ("ingest", "alerts"), "what a person should look at")
DEAD_LETTER = Topic(
    "ratchet.dead-letter", ("dead-letter.v1",), "topic", 1, False, (), "messages that are no event, with their bytes"
)

TOPICS: tuple[Topic, ...] = (
    INFERENCE,
    FEEDBACK,
    SHADOW,
    SCORE,
    TRAINING,
    ADAPTER,
    ROLLOUT,
    GATEWAY,
    DRIFT,
    ALERT,
    DEAD_LETTER,
)


def route(event: Event) -> tuple[Topic, str]:
    """Name the topic that carries ``event`` and the key that orders it there."""
    match event:
        case Inference():
            return INFERENCE, event.conversation_id or event.id
        case Shadow():
            return SHADOW, event.inference_id
        case Feedback():
            return FEEDBACK, event.inference_id or event.conversation_id or event.id
        case Score():
            return SCORE, event.target_id
        case Training():
            return TRAINING, event.task
        case Adapter():
            return ADAPTER, event.name
        case Rollout():
            return ROLLOUT, event.task
        case Operator():
            return ROLLOUT, f"{event.task}/operator"
        case Gateway():
            return GATEWAY, event.gateway
        case Drift():
            return DRIFT, event.task
        case Alert():
            return ALERT, event.id
        case DeadLetter():
            return DEAD_LETTER, event.topic
        case _:
            raise TypeError(f"no topic carries {type(event).__name__}")

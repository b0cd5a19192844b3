"""State topics that came up empty are filled again from ClickHouse (the embedded broker keeps nothing)."""

from __future__ import annotations

from ratchet.consumers.calibration import Questions
from ratchet.infra.kafka.publisher import Publisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.events import Adapter, Event
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.topics import ADAPTER, ROLLOUT
from ratchet.trainers.registry import manifests

FLUSH_S = 30.0


def seed_state_topics(store: Questions, publisher: Publisher, bootstrap: str) -> dict[str, int]:
    """Publish again what ClickHouse knows, to each state topic that holds nothing.

    The events are the old ones, with their ids and versions, so rows written from them replace
    themselves and followers that kept their state ignore them.

    Returns:
        How many events each seeded topic got; a topic that held something is not named.

    Raises:
        StoreError: ClickHouse is away.
        BrokerError: Kafka is away, or did not take everything within 30 s.
    """
    seeded: dict[str, int] = {}
    for topic, events in ((ADAPTER, adapters), (ROLLOUT, rollouts)):
        if next(read_all(bootstrap, topic.name), None) is not None:
            continue
        found: list[Event] = [*events(store)]
        for event in found:
            publisher.publish(event)
        seeded[topic.name] = len(found)
    if left := publisher.flush(FLUSH_S):
        raise BrokerError(f"{left} of {sum(seeded.values())} state events did not reach Kafka at {bootstrap}")
    return seeded


def adapters(store: Questions) -> list[Adapter]:
    """Every adapter's manifest, in the order of registration."""
    return manifests(store)


def rollouts(store: Questions) -> list[Rollout]:
    """Each task's routing table in force."""
    return [parse(Rollout, row["state"].encode()) for row in store.query("rollout_states")]

"""Topics, tails and streams against the embedded broker and a real Apache Kafka."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka import tail as tail_module
from ratchet.infra.kafka.admin import BRIEF_KEPT_MS, STATE_KEPT_MS, ensure_topics, lag, ranges, wait_for_broker
from ratchet.infra.kafka.config import group_id
from ratchet.infra.kafka.dead import original, read_dead_letters
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.stream import make_broker, subscribe
from ratchet.infra.kafka.tail import Tail, read_all
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.events import Event, Feedback
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.topics import FEEDBACK, ROLLOUT, TOPICS


def rollout(task: str, version: int) -> Rollout:
    """A routing table of ``task``."""
    return Rollout(
        id=new_id(),
        at=now(),
        task=task,
        rollout_id=new_id(),
        version=version,
        status="idle",
        stage="",
        stage_started_at=now(),
        stable="base",
        action="seed",
    )


def comment(conversation: str, text: str) -> Feedback:
    """A comment, ordered by its conversation."""
    return Feedback(
        id=new_id(), at=now(), task="streams", conversation_id=conversation, kind="comment", value=text, source="http"
    )


@pytest.fixture
def publisher(kafka: Any) -> Any:
    """A producer, idempotent where the broker can be asked for it."""
    ensure_topics(kafka.bootstrap)
    made = KafkaPublisher(kafka.bootstrap, idempotence=not kafka.embedded, client_id="test")
    yield made
    made.close()


def test_topics_are_made_as_the_table_says(kafka: Any) -> None:
    """Each topic has the table's partitions and compaction; making them again changes nothing."""
    ensure_topics(kafka.bootstrap)
    assert ensure_topics(kafka.bootstrap) == []
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    present = admin.list_topics(timeout=10).topics
    assert {topic.name: len(present[topic.name].partitions) for topic in TOPICS} == {
        topic.name: topic.partitions for topic in TOPICS
    }
    for topic in TOPICS:
        resource = ConfigResource(ResourceType.TOPIC, topic.name)
        settings = admin.describe_configs([resource])[resource].result(timeout=10)
        policy = settings.get("cleanup.policy")
        if topic.compacted:
            assert policy is not None
            assert policy.value == ",".join(topic.policy)
        if topic.brief and not kafka.embedded:
            assert settings["retention.ms"].value == str(BRIEF_KEPT_MS)
        elif topic.compacted and not kafka.embedded:
            assert settings["min.compaction.lag.ms"].value == str(STATE_KEPT_MS)


def test_a_broker_that_is_not_there_ends_in_one_sentence() -> None:
    """Waiting for a broker that never answers raises within the given time, naming the address."""
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1 did not answer within 0\.2 s"):
        wait_for_broker("127.0.0.1:1", 0.2)


def test_a_quiet_tail_reads_nothing_again(
    kafka: Any, publisher: KafkaPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many records came in one batch, the broker still has what was read; and ends are where they are."""
    monkeypatch.setattr(tail_module, "CHECK_S", 0.1)
    task = f"quiet-{new_id()}"
    seen: list[Event] = []
    for version in range(1, 21):
        publisher.publish(rollout(task, version))
    assert publisher.flush(10) == 0
    last = max(record.offset for record in read_all(kafka.bootstrap, ROLLOUT.name))
    assert ranges(kafka.bootstrap, [ROLLOUT.name])[ROLLOUT.name, 0].stop == last + 1
    tail = Tail(kafka.bootstrap, ROLLOUT, seen.append)
    tail.start()
    assert tail.caught_up(15)
    time.sleep(1)  # a few checks
    tail.close()
    assert sum(isinstance(event, Rollout) and event.task == task for event in seen) == 20


def test_tail_sees_what_was_there_and_what_comes(kafka: Any, publisher: KafkaPublisher) -> None:
    """A follower has applied all earlier state when it is caught up, then follows; bad bytes stop it not."""
    task = f"tail-{new_id()}"
    seen: list[Event] = []
    for version in (1, 2, 3):
        publisher.publish(rollout(task, version))
    publisher.send(ROLLOUT.name, b"junk", b"{}")
    assert publisher.flush(10) == 0
    tail = Tail(kafka.bootstrap, ROLLOUT, seen.append)
    tail.start()
    assert tail.caught_up(15)
    mine = [event.version for event in seen if isinstance(event, Rollout) and event.task == task]
    assert mine == [1, 2, 3]
    assert tail.failed >= 1
    publisher.publish(rollout(task, 4))
    assert publisher.flush(10) == 0
    _until(lambda: isinstance(seen[-1], Rollout) and seen[-1].task == task and seen[-1].version == 4)
    tail.close()


@pytest.mark.connected
def test_tail_follows_a_broker_that_came_back_empty(tmp_path: Path) -> None:
    """After a restart that lost all records, what is seeded anew is applied from its first record on."""
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    broker = Child("kafka", broker_command(port), tmp_path / "broker.log", BrokerProbe(bootstrap))
    seen: list[Event] = []
    tail = Tail(bootstrap, ROLLOUT, seen.append)
    for versions in ([1, 2, 3], [10, 11, 12, 13, 14]):
        with Supervisor(grace_s=0.1) as supervisor:
            supervisor.start(broker)
            ensure_topics(bootstrap)
            made = KafkaPublisher(bootstrap, False, "test")
            for version in versions:
                made.publish(rollout("t", version))
            assert made.flush(10) == 0
            if versions[0] == 1:
                tail.start()
            _until(lambda: [e.version for e in seen if isinstance(e, Rollout)][-len(versions) :] == versions)  # noqa: B023
            made.close()
    tail.close()


def test_reading_a_topic_that_does_not_exist_gives_nothing(kafka: Any) -> None:
    """A whole-topic read ends by itself, also where there is no topic or no record."""
    assert list(read_all(kafka.bootstrap, "ratchet.no-such-topic")) == []


async def test_failed_event_is_handled_again_and_others_go_on(kafka: Any, publisher: KafkaPublisher) -> None:
    """A handler's exception brings the event back after a back-off, in order; bad bytes become a dead letter.

    The acknowledgement is the handled record's own: with one partition failing, another
    partition's progress does not acknowledge the failing record.
    """
    group, poison = f"test-{new_id()}", new_id()
    handled: list[str] = []
    failing = asyncio.Event()
    healed = asyncio.Event()

    async def handle(event: Event) -> None:
        assert isinstance(event, Feedback)
        if event.value == "poison" and event.conversation_id == poison and not healed.is_set():
            failing.set()
            raise RuntimeError("the judge is away")
        if event.task == "streams":
            handled.append(str(event.value))

    publisher.publish(comment(poison, "before"))
    publisher.publish(comment(poison, "poison"))
    publisher.publish(comment(poison, "after"))
    publisher.send(FEEDBACK.name, poison.encode(), b"no event")
    assert publisher.flush(10) == 0
    broker = make_broker(kafka.bootstrap)
    subscribe(broker, FEEDBACK, group, handle, publisher, last_backoff_s=0.5)
    await broker.start()
    try:
        await asyncio.wait_for(failing.wait(), 20)
        for number in range(30):
            publisher.publish(comment(new_id(), f"other {number}"))
        await _eventually(lambda: sum(value.startswith("other") for value in handled) >= 15)
        assert "after" not in handled
        await asyncio.sleep(0.7)  # a commit interval: what is acknowledged is committed by now
        assert lag_of(kafka.bootstrap, group, poison) == 3
        healed.set()
        await _eventually(lambda: "after" in handled)
        order = [value for value in handled if value in ("before", "poison", "after")]
        assert order == ["before", "poison", "after"]
        await _eventually(lambda: lag_of(kafka.bootstrap, group, poison) == 0)
    finally:
        await broker.stop()
    letters = [letter for letter in read_dead_letters(kafka.bootstrap) if letter.key == poison]
    assert [original(letter) for letter in letters] == [b"no event"]
    assert "not JSON" in letters[0].reason


def lag_of(bootstrap: str, group: str, key: str) -> int:
    """How far the group's committed offset lies behind the end of the partition that has ``key``."""
    records = list(read_all(bootstrap, FEEDBACK.name))
    partition = next(record.partition for record in records if record.key == key.encode())
    mine = [record for record in records if record.key == key.encode()]
    request = ConsumerGroupTopicPartitions(group_id(group))
    admin = AdminClient({"bootstrap.servers": bootstrap})
    answer = admin.list_consumer_group_offsets([request])[group_id(group)].result(timeout=10)
    offsets = {p.partition: p.offset for p in answer.topic_partitions if p.topic == FEEDBACK.name}
    return sum(record.offset >= max(0, offsets.get(partition, 0)) for record in mine)


def test_lag_counts_what_a_group_has_not_acknowledged(kafka: Any, publisher: KafkaPublisher) -> None:
    """A group that never committed lags by everything its topics hold."""
    before = lag(kafka.bootstrap, "trainer")
    assert before >= 0
    held = sum(1 for topic in TOPICS if "controller" in topic.groups for _ in read_all(kafka.bootstrap, topic.name))
    assert lag(kafka.bootstrap, "controller") == held


def test_idempotent_producer_on_a_real_broker(kafka: Any) -> None:
    """A real Kafka takes an idempotent producer's records; the embedded one needs idempotence off."""
    if kafka.embedded:
        pytest.skip("the embedded broker knows no InitProducerId, which is why idempotence is a setting")
    publisher = KafkaPublisher(kafka.bootstrap, idempotence=True, client_id="idempotent")
    conversation = new_id()
    for number in range(500):
        publisher.publish(comment(conversation, f"{number}"))
    assert publisher.flush(20) == 0
    assert publisher.delivered == 500
    publisher.close()
    values = [r.value for r in read_all(kafka.bootstrap, FEEDBACK.name) if r.key == conversation.encode()]
    assert len(values) == len(set(values)) == 500


def _until(true: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


async def _eventually(true: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(true):
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.05)

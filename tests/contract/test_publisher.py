"""One contract for every publisher: the fake that ships, Kafka behind librdkafka, and the spool before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.config import MAX_RECORD_BYTES
from ratchet.infra.kafka.frames import encode
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.kafka.publisher import KafkaPublisher, Publisher
from ratchet.infra.kafka.spool import Spool
from ratchet.infra.kafka.spooled import SpooledPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Feedback
from ratchet.schemas.topics import FEEDBACK, route

Record = tuple[bytes | None, bytes | None]


@dataclass
class Case:
    """A kind of publisher: how to make one, what arrived, and how its broker goes away and comes back."""

    make: Callable[..., Publisher]
    make_away: Callable[..., Publisher]
    come_back: Callable[[Any], None]
    arrived: Callable[[Any, str], list[Record]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded broker with the loop's topics."""
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("contract") / "broker.log"
    with Supervisor(grace_s=0.1) as supervisor:
        supervisor.start(Child("kafka", broker_command(port), log, BrokerProbe(bootstrap)))
        ensure_topics(bootstrap)
        yield bootstrap


CONNECTED = [pytest.param(name, marks=pytest.mark.connected) for name in ("kafka", "spooled")]


@pytest.fixture(params=["memory", *CONNECTED])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """The fake, then Kafka, then Kafka behind a spool."""
    if request.param == "memory":
        yield Case(
            _memory, _memory_away, _memory_back, lambda p, topic: [(k, v) for t, k, v in p.records if t == topic]
        )
        return
    bootstrap = request.getfixturevalue("broker")
    port = free_port()
    elsewhere = f"127.0.0.1:{port}"
    with Supervisor(grace_s=0.1) as supervisor:

        def come_back(_: object) -> None:
            supervisor.start(Child("kafka", broker_command(port), tmp_path / "broker.log", BrokerProbe(elsewhere)))
            ensure_topics(elsewhere)

        if request.param == "spooled":
            yield _spooled(bootstrap, elsewhere, come_back, tmp_path)
            return
        yield Case(
            make=lambda **options: KafkaPublisher(bootstrap, False, "contract", **options),
            make_away=lambda **options: KafkaPublisher(
                elsewhere, False, "contract", delivery_timeout_s=0.3, linger_ms=0, **options
            ),
            come_back=come_back,
            arrived=lambda p, topic: [
                (r.key, r.value) for r in read_all(elsewhere if p.failed else bootstrap, topic) if r.value
            ],
        )


def _spooled(bootstrap: str, elsewhere: str, come_back: Callable[[Any], None], folder: Path) -> Case:
    """Its queue is the disk, bounded in bytes: here in records of the length that the tests publish."""
    where = bootstrap

    def make() -> Publisher:
        return SpooledPublisher(bootstrap, False, "contract", Spool(folder / "spool", 2**26))

    def make_away(queue_records: int = 1000) -> Publisher:
        nonlocal where
        where = elsewhere
        event = comment(new_id(), "0")
        topic, key = route(event)
        frame = len(encode(0, topic.name, key.encode(), event.to_bytes()))
        spool = Spool(folder / "spool", queue_records * (frame + 1))
        return SpooledPublisher(elsewhere, False, "contract", spool, linger_ms=0)

    def arrived(_: object, topic: str) -> list[Record]:
        return [(record.key, record.value) for record in read_all(where, topic) if record.value]

    return Case(make, make_away, come_back, arrived)


def _memory(**options: Any) -> MemoryPublisher:
    return MemoryPublisher(**options)


def _memory_away(**options: Any) -> MemoryPublisher:
    publisher = MemoryPublisher(**options)
    publisher.away = True
    return publisher


def _memory_back(publisher: MemoryPublisher) -> None:
    publisher.away = False


def comment(conversation: str, text: str) -> Feedback:
    """A comment, ordered by its conversation."""
    return Feedback(
        id=new_id(), at=now(), task="contract", conversation_id=conversation, kind="comment", value=text, source="http"
    )


def test_event_arrives_where_the_table_routes_it(case: Case) -> None:
    """An event lies on its topic under its key, as its own bytes, once flush says that nothing is left."""
    publisher = case.make()
    event = comment(new_id(), "hello")
    publisher.publish(event)
    assert publisher.flush(10) == 0
    assert event.conversation_id is not None
    assert (event.conversation_id.encode(), event.to_bytes()) in case.arrived(publisher, FEEDBACK.name)
    publisher.close()


def test_one_key_keeps_its_order(case: Case) -> None:
    """Events of one conversation are read in the order in which they were published."""
    publisher = case.make()
    conversation = new_id()
    events = [comment(conversation, f"{number}") for number in range(50)]
    for event in events:
        publisher.publish(event)
    assert publisher.flush(10) == 0
    values = [value for key, value in case.arrived(publisher, FEEDBACK.name) if key == conversation.encode()]
    assert values == [event.to_bytes() for event in events]
    publisher.close()


def test_bytes_are_sent_as_they_are(case: Case) -> None:
    """A raw record keeps key and bytes, also such as are no event: dead letters are replayed so."""
    publisher = case.make()
    key = new_id().encode()
    publisher.send(FEEDBACK.name, key, b"\x00not an event")
    assert publisher.flush(10) == 0
    assert (key, b"\x00not an event") in case.arrived(publisher, FEEDBACK.name)
    publisher.close()


def test_an_event_that_is_too_large_is_refused_at_once(case: Case) -> None:
    """A record over the limit raises with the limit in its reason, and nothing waits for it."""
    publisher = case.make()
    with pytest.raises(InvalidEvent, match=str(MAX_RECORD_BYTES)):
        publisher.publish(comment(new_id(), "x" * MAX_RECORD_BYTES))
    assert publisher.flush(10) == 0
    publisher.close()


def test_closed_takes_nothing_more(case: Case) -> None:
    """After close a publication raises instead of vanishing; closing twice is no error."""
    publisher = case.make()
    publisher.close()
    publisher.close()
    with pytest.raises(BrokerError, match="closed"):
        publisher.publish(comment(new_id(), "late"))


def test_undelivered_events_are_counted_and_kept(case: Case) -> None:
    """With the broker away flush counts what is undelivered, and delivers it once the broker is back."""
    publisher = case.make_away()
    events = [comment(new_id(), f"{number}") for number in range(20)]
    for event in events:
        publisher.publish(event)
    assert publisher.flush(0.6) == 20
    case.come_back(publisher)
    left = next((left for left in (publisher.flush(1) for _ in range(30)) if left == 0), None)
    assert left == 0
    assert {value for _, value in case.arrived(publisher, FEEDBACK.name)} >= {event.to_bytes() for event in events}
    publisher.close()


def test_a_full_queue_raises(case: Case) -> None:
    """With the broker away the queue is bounded: the event beyond it is refused to the caller's face."""
    publisher = case.make_away(queue_records=10)
    for number in range(10):
        publisher.publish(comment(new_id(), f"{number}"))
    with pytest.raises(BrokerError, match="keep up"):
        publisher.publish(comment(new_id(), "one too many"))
    case.come_back(publisher)
    assert next((left for left in (publisher.flush(1) for _ in range(30)) if left == 0), None) == 0
    publisher.close()  # one that lives on goes on syncing its records beside the tests after this one

"""Writing ahead, against a Kafka client that the test holds in its hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka import spooled
from ratchet.infra.kafka.spool import Spool
from ratchet.infra.kafka.spooled import SpooledPublisher
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.rollout_events import Gateway

PATIENCE_S = 10.0
AWAY = KafkaError(KafkaError._MSG_TIMED_OUT)
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


class Client:
    """Takes the place of `KafkaPublisher`: what was handed over is settled when the test says so."""

    def __init__(self, *_: Any, settled: Callable[[int, KafkaError | None], None], **options: Any) -> None:
        self.settled = settled
        self.handed: list[int] = []
        self.values: dict[int, bytes] = {}
        self.full = False
        self.refused = 0
        assert options["delivery_timeout_s"] == 0  # a timeout would let later records overtake

    def send(self, topic: str, key: bytes | None, value: bytes, number: int) -> None:
        if self.full:
            self.refused += 1
            raise BrokerError("full")
        self.handed.append(number)
        self.values[number] = value

    def deliver(self, *numbers: int) -> None:
        for number in numbers:
            self.settled(number, None)

    def close(self, timeout_s: float) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "KafkaPublisher", Client)
    monkeypatch.setattr(spooled, "_RETRY_S", 0.1)
    monkeypatch.setattr(spooled, "_CLOSE_S", 0.0)


Make = Callable[..., tuple[SpooledPublisher, Client]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes publishers on one folder, one after another."""
    made: list[SpooledPublisher] = []

    def start(max_bytes: int = 2**20, **options: Any) -> tuple[SpooledPublisher, Client]:
        spool = Spool(tmp_path, max_bytes, segment_bytes=2000)
        made.append(SpooledPublisher("nowhere", False, "test", spool, **({"sync_interval_s": 0.02} | options)))
        return made[-1], made[-1]._kafka  # type: ignore[return-value]

    yield start
    for publisher in made:
        publisher.close()


def publish(publisher: SpooledPublisher, count: int) -> None:
    """Send records of a hundred bytes."""
    for number in range(count):
        publisher.send("t", b"k", f"{number}".encode().ljust(100))


def until(what: Callable[[], bool]) -> None:
    """Wait for another thread's work."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_kafka_confirms_leaves_the_disk(make: Make) -> None:
    """Records go straight to the client, count as waiting until they are confirmed, and their segments go then."""
    publisher, client = make()
    publish(publisher, 100)
    assert client.handed == list(range(100))
    assert publisher.status().records == 100
    full = publisher.status().bytes
    client.deliver(*range(100))
    assert publisher.flush(0) == 0
    until(lambda: publisher.status().bytes < full / 4)


def test_the_client_holds_no_more_than_it_may(make: Make) -> None:
    """Beyond the limit records wait in the spool alone, and follow in order as others are confirmed."""
    publisher, client = make(in_flight_records=10)
    publish(publisher, 100)
    time.sleep(0.1)
    assert client.handed == list(range(10))
    for done in range(100):
        until(lambda done=done: len(client.handed) > done)  # type: ignore[misc]
        assert len(client.handed) - done <= 10
        client.deliver(client.handed[done])
    assert client.handed == list(range(100))
    assert publisher.flush(0) == 0
    publish(publisher, 1)
    assert client.handed[-1] == 100  # straight again


def test_the_bytes_in_the_client_are_limited_too(make: Make) -> None:
    """Large records fill the limit of bytes long before that of records."""
    publisher, client = make(in_flight_bytes=1000)
    publish(publisher, 50)
    time.sleep(0.1)
    assert len(client.handed) == 10


def test_a_client_that_is_full_is_asked_again(make: Make) -> None:
    """What the client's own queue refuses was accepted all the same, and is handed over once it takes records."""
    publisher, client = make()
    client.full = True
    publish(publisher, 30)
    assert publisher.flush(0.1) == 30
    client.full = False
    until(lambda: client.handed == list(range(30)))


def test_records_that_come_back_are_sent_again_before_new_ones(make: Make) -> None:
    """Failed records go out again in order, those that were delivered do not, and new ones wait their turn."""
    publisher, client = make()
    publish(publisher, 6)
    client.deliver(1, 4)
    for number in (5, 2, 0, 3):
        client.settled(number, AWAY)
    publish(publisher, 2)
    until(lambda: len(client.handed) == 12)
    assert client.handed[6:] == [0, 2, 3, 5, 6, 7]
    assert publisher.status().records == 6
    client.deliver(0, 2, 3, 5, 6, 7)
    assert publisher.status().records == 0


def test_a_restart_sends_what_was_not_confirmed(make: Make) -> None:
    """A new process hands over everything that the old one had no word of, before anything new."""
    publisher, client = make()
    publish(publisher, 50)
    client.deliver(*range(20), 30)
    publisher.close()
    again, other = make()
    publish(again, 1)
    until(lambda: len(other.handed) == 31)
    assert other.handed == list(range(20, 51))
    assert other.values[20] == b"20".ljust(100)


def test_what_kafka_never_takes_is_counted_and_let_go(make: Make) -> None:
    """A record that is refused for good does not hold up the spool: it is counted as lost."""
    publisher, client = make()
    publish(publisher, 3)
    client.deliver(0, 2)
    client.settled(1, TOO_LARGE)
    assert publisher.status()[1:] == (0, 1)


def test_damage_on_disk_is_counted(make: Make, tmp_path: Path) -> None:
    """Records whose bytes went bad while they waited are counted as lost, in the middle as at the end."""
    publisher, client = make()
    client.full = True
    publish(publisher, 20)
    frame = 100 + 12 + 14 + 2
    for path, place in zip(sorted(tmp_path.glob("*.log")), (3 * frame + 60, 3 * frame + 60), strict=True):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\xff\xff")
    # Records that were read before may still be on their way: a refusal lets go of them, and they are read anew.
    refused = client.refused
    until(lambda: client.refused >= refused + 2)
    client.full = False
    until(lambda: len(client.handed) == 18)
    assert publisher.status()[1:] == (18, 2)


def test_a_full_spool_is_said_to_the_caller(make: Make) -> None:
    """At the limit the caller is told, nothing that was accepted suffers, and room comes back with deliveries."""
    publisher, client = make(max_bytes=5000)
    with pytest.raises(BrokerError, match="spool is full"):
        publish(publisher, 1000)
    assert not publisher.accepts()
    taken = publisher.status().records
    assert client.handed == list(range(taken))
    client.deliver(*range(taken))
    until(lambda: publisher.status().bytes < 3000)
    assert publisher.accepts()
    publish(publisher, 1)


def test_the_disk_is_left_alone_while_kafka_keeps_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced while records are confirmed in time; those that wait are synced."""
    synced: list[int] = []
    monkeypatch.setattr(Spool, "sync", lambda spool: synced.append(spool.next))
    publisher, client = make(sync_interval_s=0.3)
    publish(publisher, 10)
    client.deliver(*range(10))
    # A slow machine may still be syncing what it saw unconfirmed. The look that marks all of it
    # confirmed in the spool is a later one of the same thread: from then on nothing may be synced.
    until(lambda: publisher._spool.confirmed == 10)
    synced.clear()
    time.sleep(0.8)
    assert synced == []
    publish(publisher, 1)
    until(lambda: bool(synced))


def sign(gateway: str, table: int) -> Gateway:
    """What a gateway says of itself."""
    return Gateway(id=new_id(), at=now(), gateway=gateway, tables={"support": table})


def test_the_newest_of_a_brief_topic_passes_by_whatever_waits(make: Make) -> None:
    """An acknowledgement waits for no backlog and on no disk; of a gateway only the newest waits for the last one."""
    publisher, client = make(in_flight_records=1)
    publish(publisher, 3)
    for gateway, table in (("a", 1), ("a", 2), ("b", 7), ("a", 3)):
        publisher.publish(sign(gateway, table))
    assert publisher.status().records == 3
    assert client.handed == [0, -1, -2]

    client.settled(-1, AWAY)
    assert client.handed == [0, -1, -2, -3]
    assert [parse(Gateway, client.values[n]).tables["support"] for n in (-1, -2, -3)] == [1, 7, 3]
    client.deliver(-2, -3)
    assert client.handed == [0, -1, -2, -3]
    publisher.publish(sign("a", 4))
    assert client.handed[-1] == -4
    client.full = True
    publisher.publish(sign("a", 5))
    client.deliver(-4)  # the client takes nothing more just now: a newer one comes in a few seconds
    client.full = False
    publisher.publish(sign("a", 6))
    assert parse(Gateway, client.values[client.handed[-1]]).tables == {"support": 6}

"""Flips are followed to their end: who is late is an alert, and what nobody asks any more leaves the replicas."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import ModelError
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rollout_events import Gateway
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.controller.flips import Flips
from ratchet.services.controller.unloading import Unloading
from ratchet.services.rules.rollouts.transitions import abort, begin

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
BAD = "support@v2-22222222"
ID = derived_id(int(START.timestamp() * 1000), "x")
RUNNING = begin("support", BAD, RolloutPolicy(), None, START, ID, ID)
ABORTED = abort(RUNNING, START, ID, "controller", "bad")


def at(seconds: float) -> datetime:
    """An instant after the decision."""
    return START + timedelta(seconds=seconds)


def said(seconds: float, version: int, **others: object) -> Gateway:
    """A gateway's word."""
    body = {"id": ID, "at": at(seconds), "gateway": "a", "tables": {"support": version}, "since": {"support": at(0.1)}}
    return Gateway.model_validate(body | others)


def alerts(publisher: MemoryPublisher) -> list[Alert]:
    """What was raised."""
    return [event for event in publisher.events if isinstance(event, Alert)]


def test_a_gateway_that_still_routes_to_an_aborted_candidate_is_an_alert_until_it_follows() -> None:
    """After ten seconds, once, naming it; resolved under the same id when it acknowledges."""
    publisher = MemoryPublisher()
    flips = Flips(publisher)
    flips.receive(said(1, RUNNING.version))
    for seconds in (5, 11, 12, 13):
        flips.look([ABORTED], at(seconds))
    (raised,) = alerts(publisher)
    assert (raised.kind, raised.severity, raised.state, raised.adapter) == ("routing", "critical", "open", BAD)
    assert raised.evidence["live"] == ["a"]
    assert "not acknowledged: a; 1 gateways" in raised.summary
    flips.receive(said(20, ABORTED.version))
    flips.look([ABORTED], at(21))
    assert [(one.id, one.state) for one in alerts(publisher)] == [(raised.id, "open"), (raised.id, "resolved")]


def test_a_flip_is_reported_once_with_its_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """From the decision to the last request that the gateway routed to the candidate."""
    flips = Flips(MemoryPublisher())
    flips.receive(said(5, ABORTED.version, last_request={BAD: at(0.25)}))
    with caplog.at_level("INFO", logger="ratchet.controller"):
        flips.look([ABORTED], at(6))
        flips.look([ABORTED], at(7))
    assert [record.getMessage() for record in caplog.records] == [
        f"support: abort of {BAD}: last request after 0.250 s; 1 gateways had the table after 0.100 s"
    ]


def test_a_stale_word_changes_nothing() -> None:
    """What was spooled while a gateway was cut off comes late: the newest of each counts."""
    flips = Flips(MemoryPublisher())
    flips.receive(said(20, ABORTED.version))
    flips.receive(said(1, RUNNING.version))
    assert flips.waiting_for(ABORTED, at(21)) == ()


class Replicas:
    """Model servers that remember what they were told to unload."""

    def __init__(self) -> None:
        self.unloaded: list[str] = []
        self.away = False

    def models(self, on: object) -> dict[str, dict[str, str]]:
        """Nothing is asked here."""
        raise AssertionError

    def load_adapter(self, name: str, path: str, on: object) -> None:
        """Nothing is loaded here."""
        raise AssertionError

    def unload_adapter(self, name: str) -> None:
        """Note it."""
        if self.away:
            raise ModelError("away")
        self.unloaded.append(name)


def test_an_adapter_that_nobody_asks_is_unloaded_once() -> None:
    """After the grace period, drained; not while it is wanted or in flight; again later where a replica was away."""
    replicas, flips = Replicas(), Flips(MemoryPublisher())
    unloading = Unloading(replicas, flips, 600)

    def look(seconds: float, *wanted: str, **word: object) -> list[str]:
        flips.receive(said(seconds, ABORTED.version, **word))
        return asyncio.run(unloading.run(wanted, [ABORTED], at(seconds)))

    assert look(0, BAD) == look(10) == look(609) == []
    assert look(650, in_flight={BAD: 1}) == []
    replicas.away = True
    assert look(700) == []
    replicas.away = False
    assert look(1_299) == []
    assert look(1_301) == [BAD]
    assert look(9_999) == []
    assert replicas.unloaded == [BAD]


def test_what_others_loaded_is_not_touched() -> None:
    """Evaluation loads adapters too: only what this controller's tables named is ever unloaded."""
    replicas, flips = Replicas(), Flips(MemoryPublisher())
    unloading = Unloading(replicas, flips, 0)
    flips.receive(said(5, ABORTED.version))
    asyncio.run(unloading.run([], [ABORTED], at(6)))
    assert replicas.unloaded == [BAD]

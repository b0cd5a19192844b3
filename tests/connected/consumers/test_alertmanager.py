"""The notifier against the real Alertmanager: what it makes of an alert's life, by its own API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alertmanager import alertmanager_argv
from parts import wait_for
from pydantic import SecretStr
from receiver import Receiver

from ratchet.consumers.notify import Notifier
from ratchet.infra import clock
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.sinks.outbox import Outbox, read_status
from ratchet.schemas.alerting import SinkSettings
from ratchet.schemas.monitoring_events import Alert

pytestmark = pytest.mark.connected


def ready(url: str) -> bool:
    """Whether it answers."""
    try:
        return httpx.get(f"{url}/-/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def people() -> Iterator[Receiver]:
    """Where Alertmanager's notifications go."""
    with Receiver() as running:
        yield running


@pytest.fixture
def alertmanager(people: Receiver, tmp_path: Path) -> Iterator[str]:
    """The address of a fresh Alertmanager."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = alertmanager_argv(port, tmp_path, people.url)
    with Supervisor() as supervisor:
        supervisor.start(Child("alertmanager", command, tmp_path / "alertmanager.log", lambda: ready(url)))
        yield url


def alerts(url: str) -> list[dict[str, Any]]:
    """What Alertmanager holds as active."""
    found = httpx.get(f"{url}/api/v2/alerts", timeout=10)
    return list(found.raise_for_status().json())


async def test_an_alerts_life_in_the_real_alertmanager(alertmanager: str, people: Receiver, tmp_path: Path) -> None:
    """Raised, sent again, updated, worse and resolved: one alert with the right labels, and people hear of it."""
    sink = SinkSettings(kind="alertmanager", url=SecretStr(alertmanager), allow_private=True)
    path = tmp_path / "outbox.sqlite"
    notifier = Notifier(Outbox(path), {"am": sink}, clock.now, lambda: 0.5)
    began = clock.now() - timedelta(hours=3)
    raised = Alert(
        id=clock.new_id(), at=clock.now(), task="support", adapter="support@v3-1a2b3c4d", kind="drift",
        key="support:length", severity="warning", title="answers got longer", summary="mean 40 → 90 tokens",
        action="look", runbook="https://runbooks.example/drift", since=began, false_alarms_per_year=0.5,
        source="drift", evidence={"inferences": ["i1", "i2"], "top": [{"label": "80+", "before": 0.1, "now": 0.4}]},
    )  # fmt: skip

    async def hear(**changes: object) -> None:
        await notifier.handle(raised.model_copy(update={"at": clock.now(), **changes}))
        assert await notifier.step("am")

    await hear()
    [held] = alerts(alertmanager)
    assert held["labels"] == {
        "alertname": "RatchetDrift", "severity": "warning", "task": "support", "adapter": "support@v3-1a2b3c4d",
        "key": "support:length", "alert_id": raised.id, "source": "drift",
    }  # fmt: skip
    assert held["annotations"]["description"] == "mean 40 → 90 tokens"
    assert held["annotations"]["top"] == "80+ 10.0% → 40.0%"
    assert held["annotations"]["examples"] == "i1, i2"
    assert held["annotations"]["runbook_url"] == "https://runbooks.example/drift"
    assert held["startsAt"][:19] == began.isoformat()[:19]
    wait_for(lambda: len(people.came) == 1)
    assert people.came[0].body["status"] == "firing"

    await hear(summary="mean 40 → 95 tokens")
    [again] = alerts(alertmanager)
    assert (again["fingerprint"], again["startsAt"]) == (held["fingerprint"], held["startsAt"])
    assert again["annotations"]["description"] == "mean 40 → 95 tokens"
    assert again["endsAt"] > held["endsAt"]

    await hear(severity="critical")
    [worse] = alerts(alertmanager)
    assert worse["labels"]["severity"] == "critical"

    await hear(severity="critical", state="resolved")
    wait_for(lambda: alerts(alertmanager) == [])
    wait_for(lambda: bool(people.came) and people.came[-1].body["status"] == "resolved")
    assert {one["labels"]["alert_id"] for came in people.came for one in came.body["alerts"]} == {raised.id}
    [status] = read_status(path)
    assert (status.taken, status.refused, status.waiting) == (4, 0, 0)


async def test_what_is_not_sent_again_ends_by_itself(alertmanager: str, tmp_path: Path) -> None:
    """The heartbeat keeps an open alert active; without it Alertmanager ends the alert at the time it was given."""
    sink = SinkSettings(kind="alertmanager", url=SecretStr(alertmanager), allow_private=True, resend_s=0.2)
    outbox = Outbox(tmp_path / "outbox.sqlite")
    notifier = Notifier(outbox, {"am": sink}, clock.now, lambda: 0.5)
    opened = Alert(id=clock.new_id(), at=clock.now(), kind="flood", severity="critical", title="t", source="ingest")
    await notifier.handle(opened)
    until = clock.now() + timedelta(seconds=1.5)
    while clock.now() < until:
        await notifier.step("am")
        [held] = alerts(alertmanager)
        assert held["labels"]["alert_id"] == opened.id
    wait_for(lambda: alerts(alertmanager) == [])
    [status] = outbox.status()
    assert status.taken > 1

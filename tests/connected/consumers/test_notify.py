"""The notifier against real HTTP receivers: what is sent, to whom, how often, and what survives."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from parts import wait_for
from pydantic import SecretStr
from receiver import Receiver

from ratchet.consumers.notify import Notifier
from ratchet.infra.sinks.http import post
from ratchet.infra.sinks.outbox import Outbox, read_status
from ratchet.schemas.alerting import SinkSettings
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = bytes(range(24))
SECRET = SecretStr("whsec_" + base64.b64encode(KEY).decode())


def alert(name: str = "a", minutes: float = 0, **more: object) -> Alert:
    """An open warning, as it stands some minutes after the start."""
    fields = {
        "id": derived_id(1, name), "at": START + timedelta(minutes=minutes), "kind": "drift", "severity": "warning",
        "title": f"alert {name}", "summary": "40 → 90", "source": "drift", "task": "support",
    }  # fmt: skip
    return Alert.model_validate(fields | more)


class Desk:
    """A notifier with a clock that the test sets; `deliver` sends all that is due."""

    def __init__(self, path: Path, sinks: dict[str, SinkSettings]) -> None:
        self.path, self.sinks, self.now = path, sinks, START
        self.open()

    def open(self) -> None:
        """Start, or start again after a kill: only the file is known."""
        self.outbox = Outbox(self.path)
        self.notifier = Notifier(self.outbox, self.sinks, lambda: self.now, lambda: 1.0)

    async def hear(self, *alerts: Alert) -> None:
        """Take events and send what is due."""
        for one in alerts:
            await self.notifier.handle(one)
        await self.deliver()

    async def deliver(self, **passed: float) -> None:
        """Let time pass and send what is due."""
        self.now += timedelta(**passed)
        for name in self.sinks:
            while await self.notifier.step(name):
                pass


def hook(receiver: Receiver, **more: object) -> SinkSettings:
    """A webhook sink."""
    fields = {"kind": "webhook", "url": receiver.url, "secret": SECRET, "allow_private": True, "timeout_s": 5}
    return SinkSettings.model_validate(fields | more)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""
    with Receiver() as running:
        yield running


def types(receiver: Receiver) -> list[str]:
    """What came, in order."""
    return [came.body["type"] for came in receiver.came]


async def test_raise_worse_resolve_once_each_in_order(receiver: Receiver, tmp_path: Path) -> None:
    """Updates, redeliveries and an acknowledgement send nothing; each change is sent once; signatures verify."""
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    events = [
        alert(), alert(minutes=1, summary="40 → 91"), alert(minutes=2, severity="critical"),
        alert(minutes=3, severity="critical", state="acknowledged"), alert(minutes=4, state="resolved"),
    ]  # fmt: skip
    for event in events:
        await desk.hear(event)
    await desk.hear(*events)  # the broker delivers all of it again
    assert types(receiver) == ["alert.raised", "alert.worse", "alert.resolved"]
    assert len({came.headers["webhook-id"] for came in receiver.came}) == 3
    for came in receiver.came:
        signed = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode() + came.raw
        digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert came.headers["webhook-signature"] == f"v1,{digest}"


async def test_an_open_alert_reminds_and_an_acknowledged_one_does_not(receiver: Receiver, tmp_path: Path) -> None:
    """A day later it is said again, once, with an id of its own; after an acknowledgement no more."""
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    await desk.hear(alert())
    await desk.deliver(hours=23)
    await desk.deliver(hours=1)
    await desk.deliver(hours=1)
    assert types(receiver) == ["alert.raised", "alert.reminder"]
    await desk.hear(alert(minutes=25 * 60, state="acknowledged"))
    await desk.deliver(days=3)
    assert len(receiver.came) == 2


async def test_a_sink_that_is_away_keeps_the_latest_and_holds_up_no_other(receiver: Receiver, tmp_path: Path) -> None:
    """While one answers 503 the other hears everything; what was raised and resolved meanwhile comes as its end."""
    with Receiver() as away:
        away.answer = lambda n: (503, {}, b"") if n < 3 else (200, {}, b"")
        desk = Desk(tmp_path / "o.sqlite", {"away": hook(away), "hook": hook(receiver)})
        await desk.hear(alert("a"), alert("b"))
        await desk.hear(alert("a", 1, severity="critical"), alert("b", 1, state="resolved"))
        await desk.deliver(minutes=10)
        assert types(receiver) == ["alert.raised", "alert.raised", "alert.worse", "alert.resolved"]
        status = {one.name: one for one in read_status(desk.path)}
        assert status["hook"].problem == ""
        assert status["away"].problem.startswith("503")
        for _ in range(6):
            await desk.deliver(minutes=10)
        last = [came.body for came in away.came[3:]]
        assert sorted((one["type"], one["data"]["title"]) for one in last) == [
            ("alert.raised", "alert a"), ("alert.resolved", "alert b"),
        ]  # fmt: skip
        assert next(one for one in last if one["type"] == "alert.raised")["data"]["severity"] == "critical"
        assert [one.waiting for one in read_status(desk.path)] == [0, 0]


async def test_retry_after_is_obeyed_and_the_id_stays(receiver: Receiver, tmp_path: Path) -> None:
    """A 429 with Retry-After 120 gets nothing for two minutes, then the same notice under the same id."""
    receiver.answer = lambda n: (429, {"retry-after": "120"}, b"") if n == 0 else (200, {}, b"")
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    await desk.hear(alert())
    await desk.deliver(seconds=119)
    assert len(receiver.came) == 1
    await desk.deliver(seconds=20)
    first, second = receiver.came
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.raw == second.raw


async def test_a_refusal_is_counted_said_once_and_goes_on(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A 4xx ends that notice, the next one is sent; one line in the log, the count in the status."""
    receiver.answer = lambda n: (400, {}, b"no such channel")
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    with caplog.at_level(logging.WARNING, "ratchet.alerts"):
        await desk.hear(alert("a"), alert("b"))
        await desk.deliver(hours=1)
    assert len(receiver.came) == 2
    [line] = [record.getMessage() for record in caplog.records]
    assert "refuses" in line
    assert "no such channel" in line
    [status] = read_status(desk.path)
    assert (status.refused, status.taken, status.waiting) == (2, 0, 0)
    assert status.problem == "400 no such channel"


async def test_a_kill_after_sending_sends_it_again_under_the_same_id(receiver: Receiver, tmp_path: Path) -> None:
    """The outbox knows it only once the answer was written down; the receiver can drop the second by its id."""
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    receiver.hold = hold = threading.Event()
    await desk.notifier.handle(alert())
    sending = asyncio.create_task(desk.notifier.step("hook"))
    await asyncio.to_thread(wait_for, lambda: bool(receiver.came))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    hold.set()
    desk.open()
    await desk.deliver(seconds=1)
    assert len(receiver.came) == 1  # whoever sends has it for a while
    await desk.deliver(seconds=20)
    first, second = receiver.came
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    await desk.deliver(seconds=60)
    assert len(receiver.came) == 2


async def test_a_new_sink_hears_what_is_open_and_a_removed_one_is_dropped(receiver: Receiver, tmp_path: Path) -> None:
    """After a change of the settings the new sink gets open alerts; nothing waits for the old one."""
    desk = Desk(tmp_path / "o.sqlite", {"log": SinkSettings(kind="log")})
    await desk.hear(alert("a"), alert("b"), alert("b", 1, state="resolved"))
    desk.sinks = {"hook": hook(receiver)}
    desk.open()
    await desk.deliver()
    assert [came.body["data"]["title"] for came in receiver.came] == ["alert a"]
    assert [one.name for one in read_status(desk.path)] == ["hook"]


async def test_nothing_is_followed_nor_read_to_its_end(receiver: Receiver) -> None:
    """A redirect is a refusal that says so; of an endless answer two kilobytes are read."""
    with Receiver() as inside:
        receiver.answer = lambda n: (302, {"location": inside.url}, b"")
        outcome = await post(receiver.url, "", b"{}", {}, timeout_s=5, allow_private=True)
        assert (outcome.verdict, "redirects are not followed" in outcome.says) == ("refused", True)
        assert inside.came == []
    receiver.answer = lambda n: (200, {"content-length": str(10**12)}, b"x" * 1_000_000)
    outcome = await post(receiver.url, "/p", b"{}", {}, timeout_s=5, allow_private=True)
    assert outcome.verdict == "taken"
    assert len(outcome.says) <= 300


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]",
                                  "[::ffff:127.0.0.1]", "0.0.0.0"])  # fmt: skip
async def test_nothing_is_sent_inside_unless_allowed(receiver: Receiver, host: str) -> None:
    """However loopback is written, no connection is made; the password in the URL is in no message."""
    outcome = await post(
        f"http://u:hunter2@{host}:{receiver.port}", "", b"{}", {}, timeout_s=5, allow_private=False
    )  # fmt: skip
    assert outcome.verdict == "later"
    assert "not sent: " in outcome.says
    assert "hunter2" not in outcome.says
    assert receiver.came == []


async def test_user_and_password_are_sent_and_not_said(receiver: Receiver) -> None:
    """Basic authentication comes from the URL, and a receiver that is away is named without it."""
    await post(f"http://u:p%40ss@127.0.0.1:{receiver.port}/x?y=1", "", b"{}", {}, timeout_s=5, allow_private=True)
    assert receiver.came[0].headers["authorization"] == "Basic " + base64.b64encode(b"u:p@ss").decode()
    assert receiver.came[0].path == "/x?y=1"
    assert receiver.came[0].headers["host"] == f"127.0.0.1:{receiver.port}"
    outcome = await post("http://u:hunter2@127.0.0.1:1/secret", "", b"{}", {}, timeout_s=5, allow_private=True)
    assert outcome.verdict == "later"
    assert "hunter2" not in outcome.says
    assert "secret" not in outcome.says


async def test_the_log_sink_writes_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An alert's text cannot write lines of its own into the log."""
    desk = Desk(tmp_path / "o.sqlite", {"log": SinkSettings(kind="log")})
    with caplog.at_level(logging.INFO, "ratchet.alerts"):
        await desk.hear(alert(title="t\nCRITICAL forged", summary="a\r\nb"))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "[WARNING] t CRITICAL forged a b" in record.getMessage()
    assert "\n" not in record.getMessage()


async def test_history_is_not_news_and_what_waits_is_no_history(receiver: Receiver, tmp_path: Path) -> None:
    """An event a week old when it comes is not said; one that came in time is, however long its sink was away."""
    receiver.answer = lambda n: (503, {}, b"") if n == 0 else (200, {}, b"")
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    await desk.hear(alert("old", -8 * 24 * 60), alert("new"))
    assert len(receiver.came) == 1
    await desk.deliver(days=9)
    assert [came.body["data"]["title"] for came in receiver.came] == ["alert new", "alert new"]


async def test_what_is_long_over_is_forgotten_and_the_number_is_bounded(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolved alert goes after a week, a silent open one after thirty days, the oldest resolved beyond the cap."""
    monkeypatch.setattr("ratchet.infra.sinks.outbox.MOST_ALERTS", 3)
    desk = Desk(tmp_path / "o.sqlite", {"hook": hook(receiver)})
    await desk.hear(*(alert(name, i, state="resolved") for i, name in enumerate("abc")))
    await desk.hear(alert("d", 4), alert("e", 5))
    assert desk.outbox.forget(desk.now) == 2  # a and b
    assert desk.outbox.forget(desk.now + timedelta(days=8)) == 1  # c
    assert desk.outbox.forget(desk.now + timedelta(days=29)) == 0
    assert desk.outbox.forget(desk.now + timedelta(days=31)) == 2

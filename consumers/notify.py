"""Group ``alerts``: tells people. Every event is in the outbox before its offset is committed; each sink has a worker.

A sink that is away keeps its own rows waiting and holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ratchet.consumers.rules.notifying import due, patience_s
from ratchet.infra.sinks.http import Outcome
from ratchet.infra.sinks.notice import Notice
from ratchet.infra.sinks.outbox import Outbox, Pending, Told
from ratchet.infra.sinks.sink import send
from ratchet.schemas.alerting import SinkSettings
from ratchet.schemas.events import Event
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.topics import ALERT

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker

    from ratchet.infra.kafka.publisher import Publisher

log = logging.getLogger("ratchet.alerts")
GROUP = "alerts"
LOOK_S = 1.0
"""Seconds between two looks for what became due by time."""
FORGET_S = 3600.0
LEASE_MARGIN_S = 2.0
STOP_S = 10.0


class Notifier:
    """Takes alerts, and tells each sink what it should hear; `run` beside the broker."""

    def __init__(
        self,
        outbox: Outbox,
        sinks: Mapping[str, SinkSettings],
        clock: Callable[[], datetime],
        uniform: Callable[[], float],
    ) -> None:
        """Take the parts; nothing is sent yet.

        Args:
            outbox: this process's, open.
            sinks: by name.
            clock: the present instant, with zone.
            uniform: random numbers from 0 to 1, for jitter.
        """
        self._outbox = outbox
        self._sinks = sinks
        self._clock = clock
        self._uniform = uniform
        self._news = {name: asyncio.Event() for name in sinks}
        self._failures = dict.fromkeys(sinks, 0)
        self._problems = dict.fromkeys(sinks, "")
        outbox.configure(sinks, clock())

    async def handle(self, event: Event) -> None:
        """Put one alert into the outbox."""
        if isinstance(event, Alert) and self._outbox.accept(event, self._sinks, self._clock()):
            for news in self._news.values():
                news.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop``; what is under way then is finished, what waits stays in the outbox."""
        workers = [asyncio.create_task(self._work(name, stop)) for name in self._sinks]
        workers.append(asyncio.create_task(self._tidy(stop)))
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait([*workers, ended], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        await asyncio.wait(workers, timeout=STOP_S)
        for worker in workers:
            worker.cancel()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _work(self, name: str, stop: asyncio.Event) -> None:
        news, troubled = self._news[name], False
        while not stop.is_set():
            news.clear()
            try:
                while not stop.is_set() and await self.step(name):
                    pass
                troubled = False
            except sqlite3.Error as error:
                if not troubled:
                    log.error("alerts: the outbox cannot be used, %s waits: %s", name, error)
                troubled = True
            waiting = [asyncio.create_task(event.wait()) for event in (news, stop)]
            await asyncio.wait(waiting, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()

    async def _tidy(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(sqlite3.Error):  # the workers say it
                self._outbox.forget(self._clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), FORGET_S)

    async def step(self, name: str) -> bool:
        """Look at one alert of one sink and send what it should hear; False where nothing is due."""
        settings, now = self._sinks[name], self._clock()
        pending = self._outbox.claim(name, now, settings.timeout_s + LEASE_MARGIN_S)
        if pending is None:
            return False
        reason, again = due(pending.told, pending.alert, settings, now)
        if reason is None:
            self._outbox.settle(pending, again)
            return True
        told = pending.told
        occasion = told.at.isoformat() if reason in ("reminder", "updated") else ""
        since = pending.alert.since or pending.first_at
        heard = told.severity if told.state not in ("", "resolved") else ""
        notice = Notice(pending.alert, reason, since, heard, occasion)
        try:
            outcome = await send(notice, settings, now)
        except Exception as error:
            log.exception("alerts: %s: sending alert %s failed", name, pending.alert.id)
            outcome = Outcome("later", f"{type(error).__name__} while sending; see the log")
        self._conclude(pending, settings, outcome)
        return True

    def _conclude(self, pending: Pending, settings: SinkSettings, outcome: Outcome) -> None:
        name, alert, now = pending.sink, pending.alert, self._clock()
        if outcome.verdict == "later":
            self._failures[name] += 1
            self._say(name, "away", f"{settings.shown} takes no alerts and is tried again: {outcome.says}")
            sink_s = patience_s(self._failures[name], outcome.wait_s, self._uniform())
            row_s = patience_s(pending.attempts + 1, outcome.wait_s, self._uniform())
            row_at, sink_at = (now + timedelta(seconds=wait_s) for wait_s in (row_s, sink_s))
            self._outbox.failed(pending, outcome.says, row_at, sink_at, now)
            return
        self._failures[name] = 0
        told = Told(alert.state, alert.severity, now, alert.at)
        _, again = due(told, alert, settings, now)
        refused = outcome.verdict == "refused"
        self._outbox.said(pending, told, again, outcome.says if refused else "")
        if refused:
            self._say(
                name, "refuses", f"{settings.shown} refuses alert {alert.id}, which it never gets: {outcome.says}"
            )
        elif self._problems[name]:
            log.warning("alerts: %s: works again", name)
            self._problems[name] = ""

    def _say(self, name: str, kind: str, problem: str) -> None:
        """Say a kind of problem once, until the sink works again; all of them are counted in the outbox."""
        if self._problems[name] != kind:
            log.warning("alerts: %s: %s", name, problem)
            self._problems[name] = kind


def register(broker: KafkaBroker, notifier: Notifier, publisher: Publisher) -> None:
    """Subscribe the notifier to the alerts."""
    from ratchet.infra.kafka.stream import subscribe

    subscribe(broker, ALERT, GROUP, notifier.handle, publisher)

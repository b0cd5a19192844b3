"""Asks hooks before a transition, off the controller's path, and tells them after it, from the topic.

The topic is the outbox of what is told: each hook is a consumer group of its own, whose position moves on when the
receiver took a table. So nothing is forgotten when a controller dies, wherever the next one runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ratchet.infra.sinks.http import Answer, Unreached, exchange, judged
from ratchet.infra.sinks.webhook import signed
from ratchet.schemas.errors import HookError
from ratchet.schemas.events import Event
from ratchet.schemas.hooking import HookSettings
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.topics import ROLLOUT
from ratchet.services.rules.rollouts.hooks import (
    Veto,
    concerned,
    is_news,
    may_veto,
    message,
    objection,
    question_id,
    recorded,
    what,
)

if TYPE_CHECKING:
    from ratchet.infra.kafka.publisher import Publisher

log = logging.getLogger("ratchet.controller")


@dataclass(frozen=True)
class _Question:
    id: str
    asked_at: datetime
    answer: asyncio.Task[str | None]


class Hooks:
    """Asks before a transition; one question of each hook and task stands at a time.

    Args:
        hooks: by name.
        clock: the present instant, with zone.
    """

    def __init__(self, hooks: Mapping[str, HookSettings], clock: Callable[[], datetime]) -> None:
        self._hooks, self._clock = hooks, clock
        self._questions: dict[tuple[str, str], _Question] = {}
        self._recorded: set[str] = set()
        self._telling: set[asyncio.Task[str | None]] = set()

    async def before(self, state: Rollout | None, table: Rollout) -> Veto | None:
        """Whether a transition may be made now: None lets it go, a veto says why it waits.

        It waits for no answer: a question that is not answered yet is a veto that is not recorded, and the next
        look finds the answer. What may not be held up is told, and let go.

        Args:
            state: the table in force.
            table: what would be published next.
        """
        vetoes: list[Veto] = []
        for name, hook in concerned(self._hooks, "before", table).items():
            id = question_id(name, state, table)
            if not may_veto(table):
                telling = asyncio.create_task(self._ask(name, hook, id, state, table))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)
            elif veto := self._standing(name, hook, id, state, table):
                vetoes.append(veto)
        return next((veto for veto in vetoes if veto.record), vetoes[0] if vetoes else None)

    def _standing(self, name: str, hook: HookSettings, id: str, state: Rollout | None, table: Rollout) -> Veto | None:
        now, place = self._clock(), (name, table.task)
        question = self._questions.get(place)
        stale = (
            question is not None
            and question.answer.done()
            and now - question.asked_at >= timedelta(seconds=hook.retry_s)
        )
        if question is None or question.id != id or stale:
            asking = asyncio.create_task(self._ask(name, hook, id, state, table))
            question = self._questions[place] = _Question(id, now, asking)
        if not question.answer.done():
            return Veto(name, f"{what(table)}: hook {name} has not answered yet", record=False, id=id)
        reason = question.answer.result()
        if reason is None:
            return None
        known = id in self._recorded or recorded(name, state, table)
        return Veto(name, f"{what(table)}: {reason}", record=not known, id=id)

    def recorded(self, veto: Veto) -> None:
        """Know that the audit log has a veto."""
        self._recorded.add(veto.id)

    async def _ask(self, name: str, hook: HookSettings, id: str, state: Rollout | None, table: Rollout) -> str | None:
        """Send one question; why it holds the transition up, or None."""
        try:
            answer: Answer | str = await _send(hook, id, message("before", id, state, table), self._clock())
        except Unreached as error:
            answer = str(error)
            log.warning("%s: hook %s at %s was not asked: %s", table.task, name, hook.shown, error)
        return objection(hook, answer)

    async def close(self) -> None:
        """Let what is being told be told, for as long as its time-outs allow, and drop the questions."""
        for question in self._questions.values():
            question.answer.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)


class Teller:
    """Tells one hook what was done: one table of the topic after the other, each until it was taken."""

    def __init__(self, name: str, hook: HookSettings, clock: Callable[[], datetime]) -> None:
        """Take the parts.

        Args:
            name: the hook's.
            hook: its settings.
            clock: the present instant, with zone.
        """
        self._name, self._hook, self._clock = name, hook, clock
        self._last: dict[str, tuple[Rollout | None, Rollout]] = {}

    async def handle(self, event: Event) -> None:
        """Tell one table; a receiver that refuses it for good never gets it, as with alerts.

        Raises:
            HookError: it was not taken: the table is to be told again.
        """
        if not isinstance(event, Rollout):
            return
        before, seen = self._last.get(event.task, (None, None))
        if seen is None or event.version > seen.version:
            before = seen
            self._last[event.task] = (seen, event)
        if not concerned({self._name: self._hook}, "after", event) or not is_news(event, self._clock()):
            return
        now = self._clock()
        try:
            answer = await _send(self._hook, event.id, message("after", event.id, before, event), now)
        except Unreached as error:
            raise HookError(f"hook {self._name} at {self._hook.shown}: {error}") from None
        outcome = judged(answer.status, answer.body.decode(errors="replace"), answer.retry_after, now)
        if outcome.verdict == "later":
            raise HookError(f"hook {self._name} at {self._hook.shown}: {outcome.says}")
        if outcome.verdict == "refused":
            log.warning(
                "%s: hook %s at %s refuses version %d, which it never gets: %s",
                event.task, self._name, self._hook.shown, event.version, outcome.says,
            )  # fmt: skip


@asynccontextmanager
async def telling(
    bootstrap: str, hooks: Mapping[str, HookSettings], publisher: Publisher, clock: Callable[[], datetime]
) -> AsyncIterator[None]:
    """Tell hooks of transitions meanwhile, each in a consumer group of its own; nothing is started for none.

    Args:
        bootstrap: ``host:port[,host:port…]``.
        hooks: by name.
        publisher: takes dead letters.
        clock: the present instant, with zone.
    """
    from ratchet.infra.kafka.stream import make_broker, subscribe

    told = {name: hook for name, hook in hooks.items() if hook.when != "before"}
    if not told:
        yield
        return
    broker = make_broker(bootstrap)
    for name, hook in told.items():
        subscribe(broker, ROLLOUT, f"hook-{name}", Teller(name, hook, clock).handle, publisher)
    await broker.start()
    try:
        yield
    finally:
        await broker.stop()


async def _send(hook: HookSettings, id: str, raw: bytes, now: datetime) -> Answer:
    headers = signed(id, raw, hook.secret.get_secret_value(), now) if hook.secret else {"webhook-id": id}
    url = hook.url.get_secret_value()
    return await exchange(url, "", raw, headers, timeout_s=hook.timeout_s, allow_private=hook.allow_private)

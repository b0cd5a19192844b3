"""What the judges had no word on for a reason that goes by is judged again, each hour until it is two days old.

A spent budget ends at midnight (UTC), an endpoint comes back. The abstention is in ClickHouse with its reason, so
neither a restart nor another process forgets it; the new word has the old one's id and inclusion probability and
replaces it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from ratchet.consumers.judge import Judge
from ratchet.consumers.looking import keep_looking
from ratchet.consumers.rules.verdicts import AGAIN_AFTER, AGAIN_FOR, ASKED_AGAIN
from ratchet.consumers.thumbs import stored_answers
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.rows import instant

log = logging.getLogger("ratchet.judge")
EVERY_S = 60.0
MOST = 50
"""Answers of one look; the next look has more."""


class Again:
    """The look for abstentions that are due, again and again."""

    def __init__(self, store: Store, judge: Judge, now: Callable[[], datetime] = clock.now) -> None:
        """Take the parts: a migrated store, the judge of the tasks that are looked through, and the wall clock."""
        self._store, self._judge, self._now = store, judge, now

    async def look(self) -> int:
        """Judge what is due; returns how many answers have a word now.

        Raises:
            StoreError: ClickHouse is away; the next look finds them again.
            BrokerError: the publisher's queue is full; likewise.
        """
        return sum([await self._look(task) for task in self._judge.policies])

    async def _look(self, task: str) -> int:
        grader, now = self._judge.graders[task], self._now()
        found = await asyncio.to_thread(
            self._store.query,
            "judge_asked_again",
            task=task,
            judge=grader.word,
            rubric=grader.rubric.name,
            rubric_hash=grader.rubric.hash,
            passing=ASKED_AGAIN,
            again=instant(now - AGAIN_AFTER),
            oldest=instant(now - AGAIN_FOR),
            most=MOST,
        )
        probability = {str(row["id"]): float(row["probability"]) for row in found}
        answers = await asyncio.to_thread(stored_answers, self._store, task, list(probability))
        scored = await asyncio.gather(*(self._judge.judge(one, probability[one.id]) for one in answers))
        return sum(scores[-1].score is not None for scores in scored)

    async def keep_looking(self, stop: asyncio.Event, every_s: float = EVERY_S) -> None:
        """Look until ``stop`` is set; what is away is waited for and said once."""
        await keep_looking(self.look, stop, every_s, log, "abstentions wait to be judged again")

"""Answers with a thumb down are judged for certain, whenever the thumb comes, and weigh 1 from then on.

(By default: a policy may judge a share of them, `thumb_down_fraction`, which is then their probability.)
ClickHouse is asked, every few seconds, which answers with a thumb down have no word of that probability:
a thumb before its answer was stored, a crash in between and a redelivered answer that took an old
probability back all end up in that list, so none of them needs a way of its own. An answer that the
sample already had is not judged again: its scores are published once more under their own ids, with
the new probability, and replace their rows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ratchet.consumers.judge import Answer, Judge, fraction_of, recall_spent
from ratchet.consumers.looking import keep_looking
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.events import Request, Response, Score
from ratchet.schemas.rows import instant

log = logging.getLogger("ratchet.judge")
EVERY_S = 10.0
LOOK_BACK = timedelta(days=7)
"""How old a thumb may be: a judge that was stopped for longer misses those of the time before."""
SETTLE_S = 60.0
"""For so long what was published is taken to be on its way into ClickHouse."""
MOST = 100
"""Answers of one look; the next look has more."""


def stored_answers(store: Store, task: str, ids: Sequence[str]) -> list[Answer]:
    """Answers out of ClickHouse, by id, with what was asked.

    Raises:
        StoreError: ClickHouse is away.
    """
    if not ids:
        return []
    return [
        Answer(
            id=str(row["id"]),
            drawn_by=str(row["drawn_by"]),
            at=row["at"],
            task=task,
            adapter=row["adapter"],
            rollout_id=str(row["rollout_id"]) if row["rollout_id"] else None,
            target=row["target"],
            request=Request.model_validate_json(row["request"]),
            response=Response.model_validate_json(row["response"]),
        )
        for row in store.query("judge_answers", task=task, ids=sorted(ids))
    ]


def stored_scores(store: Store, task: str, ids: Sequence[str]) -> list[Score]:
    """Every pointwise score of these answers, by whichever judge, as the event that it was.

    Raises:
        StoreError: ClickHouse is away.
    """
    if not ids:
        return []
    return [_to_score(row) for row in store.query("judge_words", task=task, ids=sorted(ids))]


def with_probability(scores: Sequence[Score], probability: float) -> list[Score]:
    """Those scores that were drawn with another probability, under their own ids with this one."""
    return [
        score.model_copy(update={"inclusion_probability": probability})
        for score in scores
        if score.inclusion_probability != probability
    ]


def _to_score(row: Mapping[str, Any]) -> Score:
    fields = {name: row[name] for name in row if name != "ingested_at"}
    for name in ("id", "target_id", "rollout_id"):
        fields[name] = str(fields[name]) if fields[name] else None
    for name in ("distribution", "verdict", "rationale", "basis"):
        fields[name] = fields[name] or None
    return Score.model_validate(fields)


class Thumbs:
    """The look for thumbs down, again and again; with it each judge's budget learns what was spent elsewhere."""

    def __init__(
        self,
        store: Store,
        judge: Judge,
        publisher: Publisher,
        *,
        settle_s: float = SETTLE_S,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts.

        Args:
            store: migrated.
            judge: of the tasks that are looked through.
            publisher: takes scores with their new probability.
            settle_s: how long an answer is left alone after it was judged or corrected.
            now: the wall clock.
            monotonic: a clock that only goes forward, in seconds.
        """
        self._store = store
        self._judge = judge
        self._publisher = publisher
        self._settle_s = settle_s
        self._now = now
        self._monotonic = monotonic
        self._done: dict[str, float] = {}

    async def look(self) -> tuple[int, int]:
        """Judge or correct what is left; returns how many answers were judged and how many corrected.

        Raises:
            StoreError: ClickHouse is away; the next look finds them again.
        """
        await asyncio.to_thread(recall_spent, self._store, self._judge.clients, self._now())
        judged = corrected = 0
        for task in self._judge.policies:
            more_judged, more_corrected = await self._look(task)
            judged, corrected = judged + more_judged, corrected + more_corrected
        return judged, corrected

    async def _look(self, task: str) -> tuple[int, int]:
        moment = self._monotonic()
        self._done = {id: until for id, until in self._done.items() if until > moment}
        grader, policy = self._judge.graders[task], self._judge.policies[task]
        found = await asyncio.to_thread(
            self._store.query,
            "judge_thumbs_left",
            task=task,
            since=instant(self._now() - LOOK_BACK),
            started=instant(self._judge.started),
            judge=grader.word,
            rubric=grader.rubric.name,
            rubric_hash=grader.rubric.hash,
            fraction=policy.thumb_down_fraction,
            most=MOST + len(self._done),
        )
        left = [id for row in found if (id := str(row["id"])) not in self._done][:MOST]
        answers = await asyncio.to_thread(stored_answers, self._store, task, left)
        scores = await asyncio.to_thread(stored_scores, self._store, task, left)
        judged = 0
        for answer in answers:
            mine = [score for score in scores if score.target_id == answer.id]
            words = [score for score in mine if self._is_word(task, score)]
            known = any(score.score is not None for score in words)
            # the word comes last: until it is there, this answer is looked for
            others = [score for score in mine if score not in words]
            probability = fraction_of(policy, answer.content, thumb_down=True)
            for score in with_probability([*others, *(words if known else [])], probability):
                self._publisher.publish(score)
            if not known:
                await self._judge.judge(answer, probability)
                judged += 1
            self._done[answer.id] = self._monotonic() + self._settle_s
        return judged, len(answers) - judged

    def _is_word(self, task: str, score: Score) -> bool:
        grader = self._judge.graders[task]
        return (score.judge, score.rubric, score.rubric_hash) == (grader.word, grader.rubric.name, grader.rubric.hash)

    async def keep_looking(self, stop: asyncio.Event, every_s: float = EVERY_S) -> None:
        """Look until ``stop`` is set; what is away is waited for and said once."""
        await keep_looking(self.look, stop, every_s, log, "thumbs down wait to be judged")

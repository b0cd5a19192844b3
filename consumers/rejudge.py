"""Judging stored answers again, after a rubric changed or with another judge: the same sample, the same ids.

The sample of a window is what the live judge would have drawn: all refusals and answers with a thumb
down, the policy's fraction of the rest by the hash of their ids. So a run that is cut off, limited or
repeated goes on where it stopped: what has a word already is not paid for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ratchet.consumers.judge import Answer, Judge, fraction_of
from ratchet.consumers.rules.sampling import draw
from ratchet.consumers.thumbs import stored_answers, stored_scores, with_probability
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.rows import instant

PAGE = 2_000
CHUNK = 50
"""Answers read at once while they are judged."""
_FIRST = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a window holds: ``todo`` and ``reweigh`` are ids with their inclusion probability, oldest first."""

    stored: int
    drawn: int
    todo: list[tuple[str, float]]
    reweigh: list[tuple[str, float]]
    """Drawn with another probability when they were judged (a thumb or a fraction changed since)."""
    left: int
    """In the sample without a word, beyond the limit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would ask at most: ``cost_usd`` is None where a judge has no price."""

    answers: int
    requests: int
    tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What a run did; ``cost_usd`` is None where it is not known. ``stopped`` says why it ended early."""

    judged: int = 0
    abstained: int = 0
    cached: int = 0
    reweighed: int = 0
    left: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0
    stopped: str = ""


class Rejudging:
    """One task's stored answers in a window, and the judge that is to judge them."""

    def __init__(
        self,
        store: Store,
        judge: Judge,
        publisher: Publisher,
        task: str,
        since: datetime,
        until: datetime,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        """Take the parts.

        Args:
            store: ClickHouse.
            judge: with the judges and the rubric that are wanted.
            publisher: the judge's own.
            task: one of the judge's.
            since: the first instant of the window.
            until: the first instant after it.
            now: the wall clock, for budgets.
        """
        self._store = store
        self._judge = judge
        self._publisher = publisher
        self._task = task
        self._since, self._until = since, until
        self._now = now

    def choose(self, limit: int | None = None) -> Chosen:
        """Draw the sample; of what has no word yet the oldest ``limit`` answers are to be judged.

        Raises:
            StoreError: ClickHouse is away.
        """
        policy = self._judge.policies[self._task]
        stored = drawn = left = 0
        todo: list[tuple[str, float]] = []
        reweigh: list[tuple[str, float]] = []
        for row in self._pages():
            stored += 1
            draws = draw(str(row["drawn_by"]), fraction_of(policy, row["head"], row["thumb_down"]))
            if not draws.sampled:
                continue
            drawn += 1
            if row["probability"]:
                if row["probability"] != draws.probability:
                    reweigh.append((str(row["id"]), draws.probability))
            elif limit is None or len(todo) < limit:
                todo.append((str(row["id"]), draws.probability))
            else:
                left += 1
        return Chosen(stored, drawn, todo, reweigh, left)

    def plan(self, chosen: Chosen) -> Plan:
        """Estimate a run before it costs anything, on the high side.

        Raises:
            StoreError: ClickHouse is away.
        """
        requests = tokens = 0
        usd = 0.0
        grader = self._judge.graders[self._task]
        for answers in self._chunks([id for id, _ in chosen.todo]):
            for answer in answers:
                asked = grader.questions(answer.id, answer.asked, answer.said)
                requests += len(asked)
                tokens += sum(more for _, more, _ in asked)
                usd += sum(more for _, _, more in asked)
        priced = all(client.price is not None for client in grader.judges)
        return Plan(len(chosen.todo), requests, tokens, usd if priced else None)

    async def run(self, chosen: Chosen, tell: Callable[[int], None] = lambda n: None) -> Rejudged:
        """Judge what is to be judged and publish the scores; ends early when a judge's budget is spent.

        Args:
            chosen: from `choose`.
            tell: takes how many answers are done, after each handful.

        Raises:
            StoreError: ClickHouse is away; a second run goes on from here.
            BrokerError: Kafka takes no more.
        """
        done = Rejudged(left=chosen.left, reweighed=await asyncio.to_thread(self._reweigh, chosen))
        probability = dict(chosen.todo)
        width = 2 * max(client.concurrency for client in self._judge.graders[self._task].judges)
        for answers in await asyncio.to_thread(lambda: list(self._ids(list(probability)))):
            loaded = await asyncio.to_thread(stored_answers, self._store, self._task, answers)
            loaded.sort(key=lambda answer: (answer.at, answer.id))
            for start in range(0, len(loaded), width):
                some = loaded[start : start + width]
                if problem := self._spent(some):
                    todo = len(chosen.todo) - done.judged - done.abstained
                    return replace(done, stopped=problem, left=chosen.left + todo)
                scored = await asyncio.gather(*(self._judge.judge(answer, probability[answer.id]) for answer in some))
                for scores in scored:
                    done = _add(done, scores)
                tell(len(some))
        return done

    def _reweigh(self, chosen: Chosen) -> int:
        wanted = dict(chosen.reweigh)
        grader = self._judge.graders[self._task]
        judges = {client.model for client in grader.judges} | {grader.word}
        for ids in self._ids(list(wanted)):
            for score in stored_scores(self._store, self._task, ids):
                if score.judge in judges and score.rubric_hash == grader.rubric.hash:
                    for changed in with_probability([score], wanted[score.target_id]):
                        self._publisher.publish(changed)
        return len(wanted)

    def _spent(self, answers: list[Answer]) -> str | None:
        """Why the next answers cannot be paid for, if so."""
        needs: dict[str, tuple[Any, float, float]] = {}
        for answer in answers:
            for client, tokens, usd in self._judge.graders[self._task].questions(answer.id, answer.asked, answer.said):
                _, so_far, cost = needs.get(client.model, (client, 0, 0.0))
                needs[client.model] = (client, so_far + tokens, cost + usd)
        problems = (client.budget.problem(self._now(), *more) for client, *more in needs.values())
        return next((problem for problem in problems if problem), None)

    def _pages(self) -> Iterator[dict[str, Any]]:
        grader = self._judge.graders[self._task]
        after_at, after_id = self._since, _FIRST
        while True:
            rows = self._store.query(
                "judge_stored",
                task=self._task,
                since=instant(self._since),
                until=instant(self._until),
                judge=grader.word,
                rubric=grader.rubric.name,
                rubric_hash=grader.rubric.hash,
                after_at=instant(after_at),
                after_id=after_id,
                most=PAGE,
            )
            yield from rows
            if len(rows) < PAGE:
                return
            after_at, after_id = rows[-1]["at"], str(rows[-1]["id"])

    def _ids(self, ids: list[str]) -> Iterator[list[str]]:
        return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))

    def _chunks(self, ids: list[str]) -> Iterator[list[Answer]]:
        return (stored_answers(self._store, self._task, some) for some in self._ids(ids))


def _add(done: Rejudged, scores: list[Any]) -> Rejudged:
    """Add one answer's scores, of which the last is the word."""
    costs = [score.cost_usd for score in scores]
    known = None if done.cost_usd is None or None in costs else done.cost_usd + sum(costs)
    abstained = scores[-1].score is None
    asked = [score for score in scores if score.basis != "combined"]
    return replace(
        done,
        judged=done.judged + (not abstained),
        abstained=done.abstained + abstained,
        cached=done.cached + all(score.cached for score in asked),
        tokens=done.tokens + sum(score.prompt_tokens + score.completion_tokens for score in scores),
        cost_usd=known,
    )

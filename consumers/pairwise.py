"""Pairwise judging: a candidate's answer beside production's, and second opinions on preference pairs.

ClickHouse is asked, every few seconds, which comparisons the sample has and nobody judged. So it does not
matter which of two answers arrived first, how often one is redelivered or when this process was killed: what
has a word is not in that list, and what is judged twice nevertheless has the same ids. The judges, with their
budgets, slots and pauses, are those of `consumers.judge`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from ratchet.consumers.comparing import Comparer, Opinion
from ratchet.consumers.grading import choose, load_rubric
from ratchet.consumers.looking import keep_looking
from ratchet.consumers.rules import pairwise as rules
from ratchet.consumers.rules.injections import flag
from ratchet.consumers.rules.pairwise import VALUES
from ratchet.consumers.rules.verdicts import AGAIN_AFTER, AGAIN_FOR, ASKED_AGAIN
from ratchet.consumers.thumbs import stored_answers
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.judge import JudgeClient
from ratchet.infra.judge_cache import JudgeCache
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.events import Score
from ratchet.schemas.ids import derived_id
from ratchet.schemas.pairwise_policy import PairwisePolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

log = logging.getLogger("ratchet.judge")
EVERY_S = 5.0
LOOK_BACK = timedelta(days=7)
"""How old a comparison may be: a judge that was stopped for longer misses those of the time before."""
SETTLE_S = 60.0
"""For so long what was published is taken to be on its way into ClickHouse."""
MOST = 50
"""Comparisons of one look; the next look has more."""


@dataclass(frozen=True, slots=True)
class Match:
    """Two answers to one conversation: ``id`` is the candidate's (of a preference pair, of its texts)."""

    id: str
    target: str
    at: datetime
    adapter: str
    rollout_id: str | None
    asked: object
    candidate: object
    other: object
    probability: float


def comparer(
    task: str,
    policy: TaskPolicy,
    clients: Mapping[str, JudgeClient],
    cache: JudgeCache | None = None,
    rubrics: Path | None = None,
) -> Comparer:
    """The judges of a task's comparisons.

    Args:
        task: its name.
        policy: its policy.
        clients: the judges, by name.
        cache: of what was said before of the same content.
        rubrics: folder of the user's own rubrics.

    Raises:
        SettingsError: a rubric or a judge that does not exist, or a rubric that is not about two answers.
    """
    rubric = load_rubric(policy.pairwise.rubric, rubrics)
    try:
        rules.check_rubric(rubric)
    except ValueError as error:
        raise SettingsError(f"tasks.{task}.pairwise.rubric: {error}") from None
    named = policy.pairwise.judges or policy.judge.judges[:1]
    judges = choose(task, policy.judge.model_copy(update={"judges": named, "quorum": None}), clients)
    return Comparer(policy.pairwise, rubric, judges, cache)


class Pairwise:
    """Finds the comparisons that nobody judged, has them judged in both orders, publishes the scores."""

    def __init__(
        self,
        store: Store,
        tasks: Mapping[str, TaskPolicy],
        publisher: Publisher,
        clients: Mapping[str, JudgeClient],
        *,
        cache: JudgeCache | None = None,
        rubrics: Path | None = None,
        settle_s: float = SETTLE_S,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the rubrics and find the judges.

        Args:
            store: migrated.
            tasks: policies by task; those without a judge are left alone.
            publisher: takes the scores.
            clients: the judges, by name.
            cache: of what was said before of the same content.
            rubrics: folder of the user's own rubrics.
            settle_s: how long a comparison is left alone after it was judged.
            now: the wall clock.
            monotonic: a clock that only goes forward, in seconds.

        Raises:
            SettingsError: a rubric or a judge that does not exist, or a rubric that is not about two answers.
        """
        self._store, self._publisher = store, publisher
        self._settle_s, self._now, self._monotonic = settle_s, now, monotonic
        self._done: dict[str, float] = {}
        self._tasks: dict[str, tuple[PairwisePolicy, Comparer]] = {}
        for task, policy in tasks.items():
            if policy.judge.enabled and policy.pairwise.enabled:
                self._tasks[task] = (policy.pairwise, comparer(task, policy, clients, cache, rubrics))

    async def look(self) -> int:
        """Judge what is left; returns how many comparisons that were.

        Raises:
            StoreError: ClickHouse is away; the next look finds them again.
            BrokerError: the publisher's queue is full; likewise.
        """
        moment = self._monotonic()
        self._done = {id: until for id, until in self._done.items() if until > moment}
        judged = 0
        for task, (_, comparer) in self._tasks.items():
            left = await asyncio.to_thread(self._left, task)
            # two questions each; more at once would only wait for the judge's slots
            width = max(1, max(judge.concurrency for judge in comparer.judges) // 2)
            for start in range(0, len(left), width):
                some = left[start : start + width]
                for match, scores in zip(
                    some, await asyncio.gather(*(self.judge(task, one) for one in some)), strict=True
                ):
                    for score in scores:
                        self._publisher.publish(score)
                    self._done[match.id] = self._monotonic() + self._settle_s
            judged += len(left)
        return judged

    def _left(self, task: str) -> list[Match]:
        policy, comparer = self._tasks[task]
        rubric, now = comparer.rubric, self._now()
        about: dict[str, Any] = {"task": task, "since": instant(now - LOOK_BACK), "judge": comparer.word}
        about |= {"rubric": rubric.name, "rubric_hash": rubric.hash, "most": MOST + len(self._done)}
        about |= {"passing": ASKED_AGAIN, "again": instant(now - AGAIN_AFTER), "oldest": instant(now - AGAIN_FOR)}
        found = self._store.query("pairwise_shadows_left", fraction=policy.fraction, **about)
        rows = [row for row in found if str(row["id"]) not in self._done][:MOST]
        answers = {
            one.id: one for one in stored_answers(self._store, task, [str(row[name]) for row in rows for name in row])
        }
        matches = []
        for row in rows:
            candidate, served = answers.get(str(row["id"])), answers.get(str(row["inference_id"]))
            if candidate is None or served is None:
                continue  # its retention ended in between
            matches.append(
                Match(
                    candidate.id,
                    "shadow",
                    candidate.at,
                    candidate.adapter,
                    candidate.rollout_id,
                    served.asked,
                    candidate.said,
                    served.said,
                    policy.fraction,
                )
            )
        pairs = self._store.query("pairwise_pairs_left", fraction=policy.pair_fraction, **about)
        left = [row for row in pairs if str(row["id"]) not in self._done][:MOST]
        return matches + [
            Match(
                str(row["id"]),
                "pair",
                row["at"],
                row["adapter"],
                None,
                orjson.loads(row["prompt"]),
                _text(row["chosen"]),
                _text(row["rejected"]),
                policy.pair_fraction,
            )
            for row in left
        ]

    async def judge(self, task: str, match: Match) -> list[Score]:
        """Every opinion's score and, last, the word that they come to.

        Where no judge is needed (`rules.without_judge`) that is the word.
        """
        comparer = self._tasks[task][1]
        if (sure := rules.without_judge(match.candidate, match.other)) is not None:
            word = Opinion(comparer.word, None, sure, basis="combined", cost_usd=0.0)
            return [self._score(task, match, word, rejected=sure.outcome != "tie")]
        opinions = await comparer.compare(match.id, match.asked, match.candidate, match.other)
        return [self._score(task, match, one) for one in opinions]

    def _score(self, task: str, match: Match, opinion: Opinion, *, rejected: bool = False) -> Score:
        """The score event of one opinion."""
        rubric, said, order = self._tasks[task][1].rubric, opinion.said, opinion.order
        why = (ASKED_AGAIN if opinion.passing else "") + opinion.why
        fields: dict[str, Any] = {"verdict": "abstain", "rationale": why[:500] or None}
        if said is not None:
            fields = {
                # the word is 0, ½ or 1; one order's is its expectation
                "score": VALUES[said.outcome] if order is None else said.score,
                "distribution": rules.as_shares(said.distribution),
                "verdict": "rejected" if rejected else said.outcome,
                "rationale": flag(match.candidate, match.other) + said.rationale or None,
                "basis": opinion.basis,
            }
        return Score(
            id=derived_id(
                int(match.at.timestamp() * 1000), "pairwise", match.id, opinion.judge, rubric.hash, order or ""
            ),
            at=match.at,
            task=task,
            adapter=match.adapter,
            rollout_id=match.rollout_id,
            target_id=match.id,
            target=match.target,
            kind="pairwise",
            judge=opinion.judge,
            rubric=f"{rubric.name}/{order}" if order else rubric.name,
            rubric_hash=rubric.hash,
            inclusion_probability=match.probability,
            prompt_tokens=opinion.prompt_tokens,
            completion_tokens=opinion.completion_tokens,
            cost_usd=opinion.cost_usd,
            cached=opinion.cached,
            judged_at=self._now(),
            **fields,
        )

    async def keep_looking(self, stop: asyncio.Event, every_s: float = EVERY_S) -> None:
        """Look until ``stop`` is set; what is away is waited for and said once."""
        await keep_looking(self.look, stop, every_s, log, "comparisons wait to be judged")


def _text(messages: str) -> object:
    """The content of a pair's one answer, which is stored as a list of one message."""
    value: Sequence[dict[str, Any]] = orjson.loads(messages)
    return value[0]["content"]

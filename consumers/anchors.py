"""Anchors at work: frozen, scored again every day beside the judge consumer, and an alert when a judge moved.

Their scores are ``score.v1`` with the target ``anchor``, which no view of traffic shows (docs/decisions/025).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ratchet.consumers.anchor_files import Anchors, load, path_of
from ratchet.consumers.calibration import Questions
from ratchet.consumers.grading import Grader, choose, load_rubric
from ratchet.consumers.rules.anchors import Anchor, Comparison, Instrument, alert, compare
from ratchet.consumers.rules.verdicts import Grade
from ratchet.infra import clock
from ratchet.infra.judge import JudgeClient
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, DatasetError, StoreError
from ratchet.schemas.events import Score
from ratchet.schemas.ids import derived_id
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

log = logging.getLogger("ratchet.anchors")
FLUSH_S = 30.0
LOOK_S = 600.0
"""Seconds between two looks whether anchors are due."""
RETRY = timedelta(hours=1)
"""After a run in which no judge scored anything."""
AT_ONCE = 4
"""Anchors that are with the judges at once; the judges' own limits hold too."""


@dataclass(frozen=True)
class Watched:
    """One instrument on the anchors: when it first and last scored them, and how that compares."""

    of: Instrument
    frozen_at: datetime
    last_at: datetime
    found: Comparison


class Anchoring:
    """Has anchors scored by every judge of their task, and says what moved."""

    def __init__(
        self,
        tasks: Mapping[str, TaskPolicy],
        folder: Path,
        graders: Mapping[str, list[Grader]],
        store: Questions,
        publisher: Publisher,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        """Take the parts.

        Args:
            tasks: the declared tasks.
            folder: of ``ratchet.toml``.
            graders: by task, without a cache: anchors are judged, not remembered.
            store: ClickHouse.
            publisher: takes scores and alerts.
            now: the wall clock.
        """
        self._tasks, self._folder, self._graders = tasks, folder, graders
        self._store, self._publisher, self._now = store, publisher, now
        self._tried: dict[str, datetime] = {}

    async def run(self, anchors: Anchors) -> list[Watched]:
        """Score the anchors now, publish the scores, compare with the freeze, and raise or resolve alerts.

        The first run after the freeze is what later ones are compared with. Abstentions are published as such.

        Raises:
            StoreError: ClickHouse is away.
            BrokerError: Kafka is.
        """
        at = self._now()
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(id: str, anchor: Anchor) -> list[Score]:
            async with slots:
                return await self._scores(anchors.task, id, anchor, at)

        scores = [
            score
            for scores in await asyncio.gather(*(one(*item) for item in anchors.by_id.items()))
            for score in scores
        ]
        # the freeze is read before the new scores can be there
        before = await asyncio.to_thread(first_scores, self._store, anchors)
        for score in scores:
            self._publisher.publish(score)
        now: dict[Instrument, dict[str, float]] = {}
        for score in scores:
            of = Instrument(anchors.task, score.judge, score.rubric, score.rubric_hash)
            now.setdefault(of, {})
            if score.score is not None:
                now[of][score.target_id] = score.score
        policy = self._tasks[anchors.task].calibration
        watched = []
        for of, said in now.items():
            then, frozen_at = before.get(of, (said, at))
            watched.append(Watched(of, frozen_at, at, compare(then, said, policy)))
        await asyncio.to_thread(self._tell, watched, at)
        return watched

    async def keep_scored(self, stop: asyncio.Event) -> None:
        """Score each task's anchors when they are due, until ``stop`` is set.

        A file that cannot be used, and parts that are away, are said once and tried again at the next look.
        """
        said: dict[str, str] = {}
        while not stop.is_set():
            for task in self._graders:
                try:
                    if path_of(self._folder, task).is_file():
                        await self._if_due(load(task, path_of(self._folder, task)))
                    said.pop(task, None)
                except (DatasetError, StoreError, BrokerError) as error:
                    if said.get(task) != str(error):
                        said[task] = str(error)
                        log.warning("anchors of task %s are not scored: %s", task, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    async def _if_due(self, anchors: Anchors) -> None:
        params = {"task": anchors.task, "ids": list(anchors.by_id), "since": instant(anchors.frozen_at)}
        (last,) = await asyncio.to_thread(self._store.query, "anchors_last_run", **params)
        every = timedelta(hours=self._tasks[anchors.task].calibration.anchor_hours)
        tried_at = max(last["tried_at"], self._tried.get(anchors.task, last["tried_at"]))
        if self._now() < max(last["scored_at"] + every, tried_at + min(RETRY, every)):
            return
        self._tried[anchors.task] = self._now()  # what is scored now is stored a little later
        for one in await self.run(anchors):
            log.info("anchors of %s by %s: %s: %s", anchors.task, one.of.judge, one.found.verdict, one.found.reason)

    async def _scores(self, task: str, id: str, anchor: Anchor, at: datetime) -> list[Score]:
        said: dict[tuple[str, str], Score] = {}
        for grader in self._graders[task]:
            for grade in await grader.grade(id, anchor.asked, anchor.answer):
                said.setdefault((grade.judge, grade.rubric), _score(task, id, anchor, grade, grader.rubric.hash, at))
        return list(said.values())

    def _tell(self, watched: list[Watched], at: datetime) -> None:
        ids = [one.of.alert_id for one in watched]
        states = {row["alert"]: row["state"] for row in self._store.query("alert_states", ids=ids)} if ids else {}
        for one in watched:
            policy = self._tasks[one.of.task].calibration
            said = alert(one.of, one.found, policy, at, states.get(one.of.alert_id))
            if said is not None:
                self._publisher.publish(said)
        if left := self._publisher.flush(FLUSH_S):
            raise BrokerError(f"Kafka did not take {left} scores and alerts of anchors within {FLUSH_S:g} s")


def first_scores(store: Questions, anchors: Anchors) -> dict[Instrument, tuple[dict[str, float], datetime]]:
    """What each instrument said at the freeze, by anchor, and when that was."""
    return {of: (then, frozen_at) for of, (then, _, frozen_at, _) in _stored(store, anchors).items()}


def watch(store: Questions, anchors: Anchors, policy: TaskPolicy) -> list[Watched]:
    """How every judge's last run over the anchors compares with the freeze, by what is stored."""
    return [
        Watched(of, frozen_at, last_at, compare(then, now, policy.calibration))
        for of, (then, now, frozen_at, last_at) in _stored(store, anchors).items()
    ]


def _stored(
    store: Questions, anchors: Anchors
) -> dict[Instrument, tuple[dict[str, float], dict[str, float], datetime, datetime]]:
    found: dict[Instrument, tuple[dict[str, float], dict[str, float], datetime, datetime]] = {}
    for row in store.query(
        "anchor_scores", task=anchors.task, ids=list(anchors.by_id), since=instant(anchors.frozen_at)
    ):
        of = Instrument(anchors.task, row["judge"], row["rubric"], row["rubric_hash"])
        then, now, frozen_at, last_at = found.get(of, ({}, {}, row["frozen_at"], row["last_at"]))
        then[row["anchor"]] = row["first_score"]
        if row["last_score"] is not None:
            now[row["anchor"]] = row["last_score"]
        found[of] = then, now, min(frozen_at, row["frozen_at"]), last_at
    return found


def _score(task: str, id: str, anchor: Anchor, grade: Grade, rubric_hash: str, at: datetime) -> Score:
    said = grade.judgement
    return Score(
        id=derived_id(int(at.timestamp() * 1000), "anchor", id, grade.judge, grade.rubric, rubric_hash),
        at=at,
        task=task,
        adapter=anchor.adapter,
        target_id=id,
        target="anchor",
        kind="pointwise",
        judge=grade.judge,
        rubric=grade.rubric,
        rubric_hash=rubric_hash,
        score=said.score if said else None,
        distribution=said.distribution if said else None,
        verdict=None if said else "abstain",
        rationale=(said.rationale if said else grade.why[:500]) or None,
        spread=grade.spread,
        basis=grade.basis,
        prompt_tokens=grade.prompt_tokens,
        completion_tokens=grade.completion_tokens,
        cost_usd=grade.cost_usd,
        judged_at=at,
    )


def graders_of(
    tasks: Mapping[str, TaskPolicy], clients: Mapping[str, JudgeClient], rubrics: Path
) -> dict[str, list[Grader]]:
    """The graders that score anchors, by task: as in production, but without a cache, and every judge of a cascade.

    Raises:
        SettingsError: a rubric or a judge that does not exist.
    """
    made: dict[str, list[Grader]] = {}
    for task, policy in tasks.items():
        if not policy.judge.enabled:
            continue
        judges, rubric = choose(task, policy.judge, clients), load_rubric(policy.judge.rubric, rubrics)
        made[task] = [Grader(policy.judge, rubric, judges)]
        if policy.judge.combine == "cascade":
            # in production the later ones are only asked where the first is not sure
            made[task] += [Grader(policy.judge, rubric, [judge]) for judge in judges[1:]]
    return made

"""Group ``judge``: LLMs grade a sample of the answers; they abstain where they cannot, and never score 0 for an error.

Which answers are judged is decided by a hash and by what was said of them: refusals and answers with a
thumb down are judged whole (`consumers.thumbs` finds the latter), the rest by the policy's fraction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.consumers.grading import Grader, choose, load_rubric
from ratchet.consumers.rules import judging
from ratchet.consumers.rules.injections import flag
from ratchet.consumers.rules.judging import Judgement
from ratchet.consumers.rules.phrases import hollow, refusal_phrase
from ratchet.consumers.rules.sampling import draw
from ratchet.consumers.rules.verdicts import ASKED_AGAIN, Grade
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.judge import JudgeClient
from ratchet.infra.judge_cache import JudgeCache
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.events import Event, Inference, Request, Response, Score, Shadow
from ratchet.schemas.ids import derived_id
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.topics import INFERENCE, SHADOW

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker

GROUP = "judge"
LONGEST_S = 240.0
"""The longest that one answer may take, all judges, criteria and retries included: Kafka waits 300 s for a member."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is judged: an answer with its request, as an event or a stored row has it.

    ``drawn_by`` is the id of the production request: both answers to one request are judged or
    neither, so that a rollout's arms stay comparable.
    """

    id: str
    drawn_by: str
    at: datetime
    task: str
    adapter: str
    rollout_id: str | None
    target: str
    request: Request
    response: Response

    @property
    def content(self) -> str:
        """Its text, empty where it has tool calls alone."""
        return self.response.content or ""

    @property
    def asked(self) -> object:
        """Its messages or prompt, as JSON values."""
        return self.request.messages if self.request.messages is not None else self.request.prompt

    @property
    def said(self) -> object:
        """Its text, or its tool calls as JSON values."""
        return self.response.content or self.response.tool_calls


def to_answer(event: Inference | Shadow) -> Answer | None:
    """The answer of an event; None for a call that gave none (its status says so)."""
    if event.status != "ok" or event.response is None:
        return None
    shadow = isinstance(event, Shadow)
    return Answer(
        id=event.id,
        drawn_by=event.inference_id if isinstance(event, Shadow) else event.id,
        at=event.at,
        task=event.task,
        adapter=event.adapter,
        rollout_id=event.rollout_id,
        target="shadow" if shadow else "inference",
        request=event.request,
        response=event.response,
    )


def fraction_of(policy: JudgePolicy, content: str, thumb_down: bool = False) -> float:
    """Share of the answers like this one that are judged.

    An answer of two strata is drawn by the larger share: samples by one hash nest, so that is its probability.
    """
    share = policy.refusal_fraction if refusal_phrase(content) else policy.fraction
    return max(share, policy.thumb_down_fraction) if thumb_down else share


class Judge:
    """The handler: draws the sample, has it graded, publishes a score or an abstention for each grade."""

    def __init__(
        self,
        tasks: Mapping[str, TaskPolicy],
        publisher: Publisher,
        clients: Mapping[str, JudgeClient],
        *,
        cache: JudgeCache | None = None,
        rubrics: Path | None = None,
        longest_s: float = LONGEST_S,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        """Load the tasks' rubrics and find their judges.

        Args:
            tasks: policies by task; other tasks are not judged.
            publisher: takes the scores.
            clients: the judges, by name.
            cache: of what was said before of the same content.
            rubrics: folder of the user's own rubrics.
            longest_s: after which an answer's judges abstain.
            now: the wall clock.

        Raises:
            SettingsError: a rubric or a judge that does not exist.
        """
        self.policies = {task: policy.judge for task, policy in tasks.items() if policy.judge.enabled}
        self.graders = {
            task: Grader(policy, load_rubric(policy.rubric, rubrics), choose(task, policy, clients), cache)
            for task, policy in self.policies.items()
        }
        self.clients = clients
        self.started = now()
        self._publisher = publisher
        self._longest_s = longest_s
        self._now = now

    async def handle(self, event: Event) -> None:
        """Judge one inference or shadow answer if the sample has it."""
        if not isinstance(event, Inference | Shadow) or event.task not in self.policies:
            return
        answer = to_answer(event)
        if answer is None:
            return
        drawn = draw(answer.drawn_by, fraction_of(self.policies[answer.task], answer.content))
        if drawn.sampled:
            await self.judge(answer, drawn.probability)

    async def judge(self, answer: Answer, probability: float) -> list[Score]:
        """Judge one answer and publish its scores; the last of them is the word that counts.

        Args:
            answer: of a task that is judged.
            probability: how likely the sample was to have it.
        """
        grades = await self._grade(answer)
        scores = [self._score(answer, grade, probability) for grade in grades]
        for score in scores:
            self._publisher.publish(score)
        return scores

    async def _grade(self, answer: Answer) -> list[Grade]:
        grader = self.graders[answer.task]
        if not answer.response.tool_calls and (why := hollow(answer.content)):
            # judges reward such answers, so none is asked; leaving them out would flatter a broken model
            return grader.same(Judgement(0.0, None, why))
        try:
            async with asyncio.timeout(self._longest_s):
                return await grader.grade(answer.id, answer.asked, answer.said)
        except TimeoutError:
            return grader.same(None, f"no judgement within {self._longest_s:g} s", passing=True)

    def _score(self, answer: Answer, grade: Grade, probability: float) -> Score:
        rubric = self.graders[answer.task].rubric
        why = (ASKED_AGAIN if grade.passing else "") + grade.why
        said: dict[str, Any] = {"verdict": "abstain", "rationale": why[:500] or None}
        if grade.judgement is not None:
            points = judging.LOWEST + grade.judgement.score * (judging.HIGHEST - judging.LOWEST)
            said = {
                "score": grade.judgement.score,
                "distribution": grade.judgement.distribution,
                "verdict": "rejected" if grade.rejected else str(round(points)),
                "rationale": flag(answer.content) + grade.judgement.rationale or None,
                "spread": grade.spread,
                "basis": grade.basis,
            }
        criterion = grade.rubric.removeprefix(rubric.name).removeprefix("/")
        parts = (grade.judge, rubric.hash, *([criterion] if criterion else []))
        return Score(
            id=derived_id(int(answer.at.timestamp() * 1000), "judge", answer.id, *parts),
            at=answer.at,
            task=answer.task,
            adapter=answer.adapter,
            rollout_id=answer.rollout_id,
            target_id=answer.id,
            target=answer.target,
            kind="pointwise",
            judge=grade.judge,
            rubric=grade.rubric,
            rubric_hash=rubric.hash,
            inclusion_probability=probability,
            prompt_tokens=grade.prompt_tokens,
            completion_tokens=grade.completion_tokens,
            cost_usd=grade.cost_usd,
            cached=grade.cached,
            judged_at=self._now(),
            **said,
        )


def recall_spent(store: Store, clients: Mapping[str, JudgeClient], now: datetime) -> None:
    """Tell each judge's budget what the scores say was spent since midnight UTC, by this process or another.

    Raises:
        StoreError: ClickHouse is away; what was spent is not known.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    spent = {row["judge"]: row for row in store.query("judge_spent", since=midnight)}
    for client in clients.values():
        if (row := spent.get(client.model)) is not None:
            client.budget.saw(now, float(row["tokens"]), float(row["usd"]))


def register(
    broker: KafkaBroker,
    tasks: Mapping[str, TaskPolicy],
    publisher: Publisher,
    clients: Mapping[str, JudgeClient],
    *,
    cache: JudgeCache | None = None,
    rubrics: Path | None = None,
) -> Judge:
    """Subscribe the judge to inferences and shadow answers.

    A partition's events are handled one after the other, so as many members of the group read side by
    side as the widest judge takes questions at once; each judge's own slots bound it.
    """
    from ratchet.infra.kafka.stream import subscribe

    judge = Judge(tasks, publisher, clients, cache=cache, rubrics=rubrics)
    concurrency = max((client.concurrency for client in clients.values()), default=1)
    for topic in (INFERENCE, SHADOW):
        for _ in range(min(concurrency, topic.partitions)):
            subscribe(broker, topic, GROUP, judge.handle, publisher)
    return judge

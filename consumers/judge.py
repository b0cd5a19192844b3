"""Group ``judge``: an LLM grades a sample of the answers; it abstains where it cannot, it never scores 0 for an error.

Retries, patience and a pause after failures are bounded, so a judge that is away costs
its partition seconds, not minutes, and the scores it missed say ``abstain``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from ratchet.consumers.rules import judging
from ratchet.consumers.rules.judging import Judgement, Rubric
from ratchet.consumers.rules.phrases import hollow, refusal_phrase
from ratchet.consumers.rules.sampling import Draw, draw
from ratchet.infra.judge import JudgeClient, JudgeRefused
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import ModelError, SettingsError
from ratchet.schemas.events import Event, Inference, Score, Shadow
from ratchet.schemas.ids import derived_id
from ratchet.schemas.policies import JudgePolicy, TaskPolicy
from ratchet.schemas.topics import INFERENCE, SHADOW

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker

log = logging.getLogger("ratchet.judge")
GROUP = "judge"
PROMPTS = "ratchet.consumers.prompts"
TRIES = 2
"""One retry of a reply without a score; then the judge abstains."""


def load_rubric(name: str) -> Rubric:
    """Read a rubric out of the package.

    Raises:
        SettingsError: no such rubric, or one without its sections.
    """
    try:
        text = resources.files(PROMPTS).joinpath(f"{name}.md").read_text(encoding="utf-8")
        return judging.parse_rubric(name, text)
    except FileNotFoundError:
        files = (file.name for file in resources.files(PROMPTS).iterdir())
        allowed = ", ".join(sorted(file.removesuffix(".md") for file in files if file.endswith(".md")))
        raise SettingsError(f"judge.rubric: {name!r} is not in the package; allowed: {allowed}") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None


class Judge:
    """The handler: draws the sample, asks the judge, publishes a score or an abstention for each answer drawn."""

    def __init__(
        self,
        tasks: Mapping[str, TaskPolicy],
        publisher: Publisher,
        client: JudgeClient,
        *,
        concurrency: int = 2,
        patience_s: float = 90.0,
        failures: int = 3,
        pause_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the tasks' rubrics.

        Args:
            tasks: policies by task; other tasks are not judged.
            publisher: takes the scores.
            client: the judge.
            concurrency: answers that are with the judge at once.
            patience_s: the longest one answer may take, retries included.
            failures: times in a row that the endpoint may be away before it is left alone …
            pause_s: … for this long, abstaining at once.
            monotonic: a clock that only goes forward, in seconds.

        Raises:
            SettingsError: a rubric that is not in the package.
        """
        self._policies: dict[str, tuple[JudgePolicy, Rubric]] = {
            task: (policy.judge, load_rubric(policy.judge.rubric))
            for task, policy in tasks.items()
            if policy.judge.enabled
        }
        self._publisher = publisher
        self._client = client
        self._slots = asyncio.Semaphore(concurrency)
        self._patience_s = patience_s
        self._failures_allowed = failures
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._failures = 0
        self._paused_until = float("-inf")

    async def handle(self, event: Event) -> None:
        """Judge one inference or shadow answer if the sample has it."""
        if not isinstance(event, Inference | Shadow) or event.task not in self._policies:
            return
        if event.status != "ok" or event.response is None:
            return
        policy, rubric = self._policies[event.task]
        content = event.response.content or ""
        # both answers to one request are judged, or neither: the arms stay comparable
        request_id = event.inference_id if isinstance(event, Shadow) else event.id
        drawn = draw(request_id, policy.refusal_fraction if refusal_phrase(content) else policy.fraction)
        if not drawn.sampled:
            return
        if not event.response.tool_calls and (why := hollow(content)):
            # judges reward such answers, so none is asked; leaving them out would flatter a broken model
            self._publisher.publish(self._score(event, rubric, drawn, score=0.0, verdict="rejected", rationale=why))
            return
        async with self._slots:
            self._publisher.publish(await self._judge(event, rubric, drawn))

    async def _judge(self, event: Inference | Shadow, rubric: Rubric, drawn: Draw) -> Score:
        if self._monotonic() < self._paused_until:
            return self._abstain(event, rubric, drawn, "the judge is away; left alone for a while")
        try:
            async with asyncio.timeout(self._patience_s):
                score = await self._ask(event, rubric, drawn)
        except JudgeRefused as error:
            return self._abstain(event, rubric, drawn, str(error))
        except (ModelError, TimeoutError) as error:
            self._failed(error)
            return self._abstain(event, rubric, drawn, str(error) or f"no reply in {self._patience_s:g} s")
        self._failures = 0
        return score

    async def _ask(self, event: Inference | Shadow, rubric: Rubric, drawn: Draw) -> Score:
        assert event.response is not None
        asked: object = event.request.messages if event.request.messages is not None else event.request.prompt
        answer: object = event.response.content or event.response.tool_calls
        system, user = judging.build_prompt(rubric, event.id, asked, answer)
        spent = {"prompt_tokens": 0, "completion_tokens": 0}
        text = ""
        for _ in range(TRIES):
            reply = await self._client.ask(system, user, judging.REPLY_SCHEMA)
            spent["prompt_tokens"] += reply.prompt_tokens
            spent["completion_tokens"] += reply.completion_tokens
            text = reply.text
            judgement = judging.read_reply(text, reply.tokens)
            if judgement is not None:
                return self._judged(event, rubric, drawn, judgement, spent)
        return self._abstain(event, rubric, drawn, f"no score in the reply {text[:120]!r}", **spent)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= self._failures_allowed:
            self._paused_until = self._monotonic() + self._pause_s
            self._failures = 0
            log.warning("the judge is away and is left alone for %g s: %s", self._pause_s, error)

    def _judged(
        self, event: Inference | Shadow, rubric: Rubric, drawn: Draw, judgement: Judgement, spent: dict[str, int]
    ) -> Score:
        grade = round(judging.LOWEST + judgement.score * (judging.HIGHEST - judging.LOWEST))
        return self._score(
            event,
            rubric,
            drawn,
            score=judgement.score,
            distribution=judgement.distribution,
            verdict=str(grade),
            rationale=judgement.rationale or None,
            **spent,
        )

    def _abstain(self, event: Inference | Shadow, rubric: Rubric, drawn: Draw, why: str, **spent: int) -> Score:
        return self._score(event, rubric, drawn, verdict="abstain", rationale=why[:500], **spent)

    def _score(self, event: Inference | Shadow, rubric: Rubric, drawn: Draw, **said: Any) -> Score:
        unix_ms = int(event.at.timestamp() * 1000)
        return Score(
            id=derived_id(unix_ms, "judge", event.id, self._client.model, rubric.hash),
            at=event.at,
            task=event.task,
            adapter=event.adapter,
            rollout_id=event.rollout_id,
            target_id=event.id,
            target="shadow" if isinstance(event, Shadow) else "inference",
            kind="pointwise",
            judge=self._client.model,
            rubric=rubric.name,
            rubric_hash=rubric.hash,
            inclusion_probability=drawn.probability,
            **said,
        )


def register(
    broker: KafkaBroker,
    tasks: Mapping[str, TaskPolicy],
    publisher: Publisher,
    client: JudgeClient,
    concurrency: int = 2,
) -> Judge:
    """Subscribe the judge to inferences and shadow answers.

    A partition's events are handled one after the other, so ``concurrency`` members of the
    group read side by side; how many answers are with the judge at once stays bounded by it.
    """
    from ratchet.infra.kafka.stream import subscribe

    judge = Judge(tasks, publisher, client, concurrency=concurrency)
    for topic in (INFERENCE, SHADOW):
        for _ in range(min(concurrency, topic.partitions)):
            subscribe(broker, topic, GROUP, judge.handle, publisher)
    return judge

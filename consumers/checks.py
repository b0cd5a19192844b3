"""Group ``checks``: run the task's programmatic checks on every answer and publish a score each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.consumers.check_set import CheckSet
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.checks import Answer
from ratchet.schemas.events import Event, Inference, Score, Shadow
from ratchet.schemas.ids import derived_id
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.topics import INFERENCE, SHADOW

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker

GROUP = "checks"


def unix_ms(event: Event) -> int:
    """The event's time in milliseconds since 1970, as `derived_id` takes it."""
    return int(event.at.timestamp() * 1000)


def check_scores(event: Inference | Shadow, checks: CheckSet) -> list[Score]:
    """One score a check that applies; none for a call that gave no answer (its status says so).

    A score's id and time come from the answer's, so a redelivered answer gives the same
    rows again. A changed check has another hash and gives rows of its own. A check that
    abstains gives a row without a score.
    """
    answer = Answer.of(event)
    if answer is None:
        return []
    return [
        Score(
            id=derived_id(unix_ms(event), "check", event.id, prepared.check.name, prepared.hash),
            at=event.at,
            task=event.task,
            adapter=event.adapter,
            rollout_id=event.rollout_id,
            target_id=event.id,
            target="shadow" if isinstance(event, Shadow) else "inference",
            kind="check",
            judge="check",
            rubric=prepared.check.name,
            rubric_hash=prepared.hash,
            score=result.score,
            verdict=result.verdict,
            rationale=result.reason,
        )
        for prepared, result in checks.run(event.task, answer)
    ]


class Checks:
    """The handler: publishes the scores of each answer; tasks without a policy have no checks."""

    def __init__(self, tasks: Mapping[str, TaskPolicy], publisher: Publisher, folder: Path = Path()) -> None:
        """Make the checks ready.

        Args:
            tasks: policies by task.
            publisher: takes the scores.
            folder: of ``ratchet.toml``; reference files and modules of functions are beside it.

        Raises:
            SettingsError: a check that can never run; names task and check.
        """
        self._checks = CheckSet({task: policy.checks for task, policy in tasks.items()}, folder)
        self._publisher = publisher

    async def handle(self, event: Event) -> None:
        """Check one inference or shadow answer."""
        if not isinstance(event, Inference | Shadow) or event.task not in self._checks:
            return
        if self._checks.waits(event.task):
            # a slow function of the task's own must not hold up the other consumers of this process
            scores = await asyncio.to_thread(check_scores, event, self._checks)
        else:
            scores = check_scores(event, self._checks)
        for score in scores:
            self._publisher.publish(score)

    def close(self) -> None:
        """End the functions' process, if there is one."""
        self._checks.close()


def register(
    broker: KafkaBroker, tasks: Mapping[str, TaskPolicy], publisher: Publisher, folder: Path = Path()
) -> Checks:
    """Subscribe the checks to inferences and shadow answers."""
    from ratchet.infra.kafka.stream import subscribe

    checks = Checks(tasks, publisher, folder)
    for topic in (INFERENCE, SHADOW):
        subscribe(broker, topic, GROUP, checks.handle, publisher)
    return checks

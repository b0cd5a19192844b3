"""Group ``checks``: run the task's programmatic checks on every answer and publish a score each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ratchet.consumers.rules.checks import check_hash, check_problem, run_check
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import SettingsError
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


def check_scores(event: Inference | Shadow, policy: TaskPolicy) -> list[Score]:
    """One score a check of the task; none for a call that gave no answer (its status says so).

    A score's id and time come from the answer's, so a redelivered answer gives the same
    rows again. A changed check has another hash and gives rows of its own.
    """
    if event.status != "ok" or event.response is None:
        return []
    scores = []
    for check in policy.checks:
        result = run_check(check, event.response.content)
        fingerprint = check_hash(check)
        scores.append(
            Score(
                id=derived_id(unix_ms(event), "check", event.id, check.name, fingerprint),
                at=event.at,
                task=event.task,
                adapter=event.adapter,
                rollout_id=event.rollout_id,
                target_id=event.id,
                target="shadow" if isinstance(event, Shadow) else "inference",
                kind="check",
                judge="check",
                rubric=check.name,
                rubric_hash=fingerprint,
                score=result.score,
                verdict="pass" if result.score else "fail",
                rationale=result.reason,
            )
        )
    return scores


class Checks:
    """The handler: publishes the scores of each answer; tasks without a policy have no checks."""

    def __init__(self, tasks: Mapping[str, TaskPolicy], publisher: Publisher) -> None:
        """Refuse checks that could never run.

        Raises:
            SettingsError: a check's schema or pattern is broken; names task and check.
        """
        for task, policy in tasks.items():
            for check in policy.checks:
                if problem := check_problem(check):
                    raise SettingsError(f"tasks.{task}.checks: {problem}")
        self._tasks = tasks
        self._publisher = publisher

    async def handle(self, event: Event) -> None:
        """Check one inference or shadow answer."""
        if not isinstance(event, Inference | Shadow) or event.task not in self._tasks:
            return
        for score in check_scores(event, self._tasks[event.task]):
            self._publisher.publish(score)


def register(broker: KafkaBroker, tasks: Mapping[str, TaskPolicy], publisher: Publisher) -> Checks:
    """Subscribe the checks to inferences and shadow answers."""
    from ratchet.infra.kafka.stream import subscribe

    checks = Checks(tasks, publisher)
    for topic in (INFERENCE, SHADOW):
        subscribe(broker, topic, GROUP, checks.handle, publisher)
    return checks

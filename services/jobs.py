"""What a person says of training jobs: one is wanted, or is to end. Both are events on `ratchet.training`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.schemas.events import Training

ENDED = ("finished", "failed", "cancelled", "declined")


def history(s: Settings, job_id: str) -> list[dict[str, Any]]:
    """Everything that was told of one job, the oldest first.

    Raises:
        TrainingError: no such job.
        StoreError: ClickHouse is away.
    """
    from ratchet.schemas.errors import TrainingError

    try:
        uuid.UUID(job_id)
    except ValueError:
        raise TrainingError(f"job {job_id!r} is no id; allowed: a UUID, see `ratchet jobs list`") from None
    with wiring.store(s) as store:
        rows = store.query("training_events", job_id=job_id)
    if not rows:
        raise TrainingError(f"job {job_id} is not known; `ratchet jobs list` shows those that are")
    return rows


def cancel(s: Settings, job_id: str, who: str, why: str) -> Training:
    """Ask for the end of a job; whoever trains it looks for that every two seconds, and before it begins.

    Args:
        s: the settings.
        job_id: the job.
        who: asks.
        why: for the record.

    Returns:
        The event that says so, published.

    Raises:
        TrainingError: no such job, or it has ended.
        RatchetError: Kafka or ClickHouse is away.
    """
    from ratchet.infra import clock
    from ratchet.schemas.errors import TrainingError
    from ratchet.schemas.events import Training

    rows = history(s, job_id)
    if ended := next((row for row in rows if row["state"] in ENDED), None):
        raise TrainingError(f"job {job_id} of task {ended['task']} has ended: it {_was(ended['state'])}")
    first = rows[0]
    event = Training(
        id=clock.new_id(),
        at=clock.now(),
        task=first["task"],
        job_id=job_id,
        state="cancelled",
        method=first["method"],
        trigger=first["trigger"],
        reason=f"cancelled by {who}" + (f": {why}" if why else ""),
    )
    publish(s, event)
    return event


def _was(state: str) -> str:
    return state if state in ("finished", "failed") else f"was {state}"


def request(s: Settings, task: str, params: dict[str, Any], version: str | None) -> Training:
    """Ask the training worker for a training; returns the event, published.

    Args:
        s: the settings.
        task: one that they declare.
        params: over the task's recipe, see `Recipe`; also ``max_pairs``.
        version: the dataset; None builds one when the job begins.

    Raises:
        SettingsError: no such task.
        BrokerError: Kafka is away.
    """
    from ratchet.infra import clock
    from ratchet.schemas.errors import SettingsError
    from ratchet.schemas.events import Training

    if task not in s.tasks:
        raise SettingsError(f"task {task!r}; allowed: {', '.join(s.tasks) or 'none, [tasks.<name>] declares one'}")
    event = Training(
        id=clock.new_id(),
        at=clock.now(),
        task=task,
        job_id=clock.new_id(),
        state="requested",
        method=params.get("method") or s.tasks[task].training.method,
        reason="asked for by hand",
        params=params | ({"dataset": version} if version else {}),
    )
    publish(s, event)
    return event


def publish(s: Settings, *events: Training) -> None:
    """Publish, and make sure that it came through.

    Raises:
        BrokerError: Kafka is away.
    """
    from ratchet.infra.kafka.admin import wait_for_broker
    from ratchet.schemas.errors import BrokerError

    wait_for_broker(s.kafka, 10)
    publisher = wiring.publisher(s, "ratchet-jobs")
    try:
        for event in events:
            publisher.publish(event)
        if left := publisher.flush(30):
            raise BrokerError(f"{left} events about training were not delivered to Kafka")
    finally:
        publisher.close()

"""What is told of a training job on `ratchet.training`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ratchet.schemas.events import Training
from ratchet.schemas.ids import derived_id


def told(request: Training, state: str, at: datetime, **fields: Any) -> Training:
    """An event about a job.

    Args:
        request: the `requested` event: task, job, method and trigger are its own.
        state: what became of the job.
        at: when.
        fields: of `Training`, over those.
    """
    made = derived_id(int(at.timestamp() * 1000), "training", request.job_id, state, str(fields.get("step")))
    ours = request.model_dump(include={"task", "job_id", "method", "trigger"})
    return Training.model_validate(ours | {"id": made, "at": at, "state": state} | fields)


def progressed(request: Training, dataset: str, line: Mapping[str, Any], at: datetime) -> Training:
    """A line of progress.jsonl as an event; ``at`` is when it was read."""
    metrics = {name: float(value) for name, value in line.items() if name not in ("step", "steps")}
    return told(request, "progress", at, dataset=dataset, step=line["step"], steps=line["steps"], metrics=metrics)

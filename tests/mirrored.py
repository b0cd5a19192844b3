"""Two answers to one request, production's and a candidate's, for the tests of whoever compares them."""

from __future__ import annotations

import uuid
from typing import Any

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import now
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Event, Inference, Score, Shadow
from ratchet.schemas.ids import derived_id, uuid7
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.pairwise_policy import PairwisePolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row

CANDIDATE = "t@v2-0a1b2c3d"


def mirrored(task: str, production: str, candidate: str, **more: Any) -> tuple[Inference, Shadow]:
    """A production answer and the candidate's answer to a copy of the request."""
    at = now()
    unix_ms = int(at.timestamp() * 1000)
    shared = {
        "at": at,
        "task": task,
        "base_model": "tiny",
        "request": {"messages": [{"role": "user", "content": "Where is order 12?"}]},
        "status": "ok",
        "latency_ms": 1,
        "source": "gateway",
    }
    served = Inference.model_validate(
        shared
        | {"id": uuid7(unix_ms, uuid.uuid4().bytes), "adapter": "base", "stage": "stable"}
        | {"response": {"content": production}}
    )
    copied = Shadow.model_validate(
        shared
        | {"id": uuid7(unix_ms, uuid.uuid4().bytes), "inference_id": served.id, "adapter": CANDIDATE}
        | {"rollout_id": derived_id(1, task), "response": {"content": candidate}}
        | more
    )
    return served, copied


def policy(**more: Any) -> dict[str, TaskPolicy]:
    """Everything is compared, unless said otherwise."""
    fields: dict[str, Any] = {"fraction": 1.0, "pair_fraction": 1.0}
    return {"": TaskPolicy(judge=JudgePolicy(), pairwise=PairwisePolicy(**(fields | more)))}


def put(store: Store, *events: Event) -> None:
    """Store events as ingest does."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        found = row(event)
        assert found is not None
        rows.setdefault(found[0], []).append(found[1])
    for table, some in rows.items():
        store.insert_rows(table, some)


def scores(out: MemoryPublisher) -> list[Score]:
    """What was published."""
    return [event for event in out.events if isinstance(event, Score)]

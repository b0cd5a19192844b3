"""Events to ClickHouse rows: one pure function an event kind, snapshotted by the golden messages."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson

from ratchet.schemas.events import Adapter, Event, Feedback, Inference, Request, Score, Shadow, Training
from ratchet.schemas.monitoring_events import Alert, Drift
from ratchet.schemas.rollout_events import Gateway, Rollout

Row = dict[str, Any]
TABLES = {
    "inference.v1": "inferences_log",
    "shadow.v1": "shadows_log",
    "feedback.v1": "feedback_log",
    "score.v1": "scores_log",
    "training.v1": "training_log",
    "adapter.v1": "adapters_log",
    "rollout.v1": "rollouts_log",
    "gateway.v1": "gateways_log",
    "drift.v1": "drift_log",
    "alert.v1": "alerts_log",
}
"""The table of each event kind that ClickHouse keeps."""


def instant(value: datetime) -> str:
    """A time as ClickHouse's DateTime64(6, 'UTC') reads it."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def canonical(value: object) -> str:
    """JSON text with sorted keys: equal values give equal text, so hashes of it compare."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def prompt_hash(request: Request) -> str:
    """32 hex digits that two requests share exactly when they asked the same thing of a model."""
    asked = request.messages if request.messages is not None else request.prompt
    return hashlib.sha256(canonical(asked).encode()).hexdigest()[:32]


def _call(event: Inference | Shadow) -> Row:
    return {
        "id": event.id,
        "schema": event.schema_,
        "at": instant(event.at),
        "task": event.task,
        "tenant": event.tenant,
        "conversation_id": event.conversation_id or "",
        "user": event.user or "",
        "adapter": event.adapter,
        "stage": event.stage,
        "rollout_id": event.rollout_id,
        "base_model": event.base_model,
        "prompt_hash": prompt_hash(event.request),
        "request": event.request.model_dump_json(exclude_none=True),
        "response": event.response.model_dump_json(exclude_none=True) if event.response else "",
        "content": (event.response.content or "") if event.response else "",
        "status": event.status,
        "error": event.error or "",
        "latency_ms": event.latency_ms,
        "ttft_ms": event.ttft_ms,
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "cost_usd": event.cost_usd,
        "stream": event.stream,
        "source": event.source,
        "tags": event.tags,
    }


def _feedback(event: Feedback) -> Row:
    number = float(event.value) if isinstance(event.value, bool | float | int) else None
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task,
        "tenant": event.tenant,
        "inference_id": event.inference_id,
        "conversation_id": event.conversation_id or "",
        "kind": event.kind,
        "number": number,
        "text": event.value if isinstance(event.value, str) else "",
        "compared_with": event.compared_with,
        "user": event.user or "",
        "source": event.source,
        "tags": event.tags,
    }


def _score(event: Score) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task,
        "adapter": event.adapter,
        "rollout_id": event.rollout_id,
        "target_id": event.target_id,
        "target": event.target,
        "kind": event.kind,
        "judge": event.judge,
        "rubric": event.rubric,
        "rubric_hash": event.rubric_hash,
        "score": event.score,
        "distribution": event.distribution or {},
        "verdict": event.verdict or "",
        "rationale": event.rationale or "",
        "spread": event.spread,
        "basis": event.basis or "",
        "inclusion_probability": event.inclusion_probability,
        "prompt_tokens": event.prompt_tokens,
        "completion_tokens": event.completion_tokens,
        "cost_usd": event.cost_usd,
        "cached": event.cached,
        "judged_at": instant(event.judged_at) if event.judged_at else None,
    }


def _training(event: Training) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task,
        "job_id": event.job_id,
        "state": event.state,
        "method": event.method,
        "trigger": event.trigger,
        "reason": event.reason,
        "dataset": event.dataset or "",
        "adapter": event.adapter or "",
        "step": event.step,
        "steps": event.steps,
        "metrics": event.metrics,
        "params": canonical(event.params),
        "alert_id": event.alert_id,
    }


def _adapter(event: Adapter) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task,
        "name": event.name,
        "status": event.status,
        "base_model": event.base_model,
        "dataset": event.dataset,
        "manifest": event.to_bytes().decode(),
    }


def _rollout(event: Rollout) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task,
        "rollout_id": event.rollout_id,
        "version": event.version,
        "status": event.status,
        "stage": event.stage,
        "stable": event.stable,
        "candidate": event.candidate or "",
        "action": event.action,
        "actor": event.actor,
        "reason": event.reason,
        "gates": canonical([gate.model_dump(mode="json") for gate in event.gates]),
        "state": event.to_bytes().decode(),
    }


def _gateway(event: Gateway) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "gateway": event.gateway,
        "state": event.state,
        "tables": event.tables,
        "since": {task: instant(at) for task, at in event.since.items()},
        "in_flight": event.in_flight,
        "last_request": {adapter: instant(at) for adapter, at in event.last_request.items()},
    }


def _drift(event: Drift) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task,
        "adapter": event.adapter,
        "metric": event.metric,
        "rule": event.rule,
        "verdict": event.verdict,
        "n_baseline": event.n_baseline,
        "n": event.n,
        "baseline": event.baseline,
        "value": event.value,
        "effect_name": event.effect_name,
        "effect": event.effect,
        "threshold": event.threshold,
        "p_value": event.p_value,
        "q_value": event.q_value,
        "streak": event.streak,
        "calm": event.calm,
        "reason": event.reason,
        "said": event.to_bytes().decode(),
    }


def _alert(event: Alert) -> Row:
    return {
        "id": event.id,
        "at": instant(event.at),
        "task": event.task or "",
        "adapter": event.adapter or "",
        "kind": event.kind,
        "key": event.key,
        "severity": event.severity,
        "state": event.state,
        "since": instant(event.since) if event.since else None,
        "title": event.title,
        "summary": event.summary,
        "action": event.action,
        "runbook": event.runbook,
        "false_alarms_per_year": event.false_alarms_per_year,
        "evidence": canonical(event.evidence),
        "source": event.source,
    }


def row(event: Event) -> tuple[str, Row] | None:
    """The table that stores ``event`` and its row; None for events that no table keeps."""
    match event:
        case Inference():
            return TABLES[event.schema_], _call(event)
        case Shadow():
            return TABLES[event.schema_], _call(event) | {"inference_id": event.inference_id}
        case Feedback():
            return TABLES[event.schema_], _feedback(event)
        case Score():
            return TABLES[event.schema_], _score(event)
        case Training():
            return TABLES[event.schema_], _training(event)
        case Adapter():
            return TABLES[event.schema_], _adapter(event)
        case Rollout():
            return TABLES[event.schema_], _rollout(event)
        case Gateway():
            return TABLES[event.schema_], _gateway(event)
        case Drift():
            return TABLES[event.schema_], _drift(event)
        case Alert():
            return TABLES[event.schema_], _alert(event)
        case _:
            return None

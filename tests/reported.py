"""Traffic in a baseline and in a window, for the tests of what drift measures."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from ratchet.consumers.rules.measurement import Measurement, Window

START = datetime(2026, 11, 2, tzinfo=UTC)
BASELINE = Window(START, START + timedelta(hours=6))
WINDOW = Window(START + timedelta(hours=6), START + timedelta(hours=9))
V1, V2 = "t@v1-1a2b3c4d", "t@v2-5e6f7a8b"


def call(task: str, at: datetime, number: int, **fields: Any) -> dict[str, Any]:
    """One inference."""
    prompt = fields.pop("prompt", "where is my order?")
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task}{at}{number}")),
        "at": (at + timedelta(milliseconds=number)).isoformat(),
        "task": task,
        "adapter": V1,
        "stage": "stable",
        "status": "ok",
        "request": f'{{"messages":[{{"role":"system","content":"x"}},{{"role":"user","content":"{prompt}"}}]}}',
        "content": "fine",
        "latency_ms": 100.0,
        "cost_usd": 0.001,
    } | fields


def traffic(task: str, window: Window, each_hour: int, make: Any) -> list[dict[str, Any]]:
    """``each_hour`` inferences in every hour of a window; ``make(number)`` gives the fields of the ``number``th."""
    span = int((window.until - window.since).total_seconds() // 3600)
    return [
        call(task, window.since + timedelta(hours=hour), number, **make(hour * each_hour + number))
        for hour in range(span)
        for number in range(each_hour)
    ]


def named(found: list[Measurement]) -> dict[str, Measurement]:
    """Measurements by metric; each metric once."""
    assert len({one.metric for one in found}) == len(found)
    return {one.metric: one for one in found}

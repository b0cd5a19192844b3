"""What drift measures: questions to ClickHouse over hourly rollups, answers as `Measurement` and `HourValue`.

Nothing is decided here: which move is worth an alert is for the rules.
"""

from __future__ import annotations

from datetime import datetime

from ratchet.consumers.rules.measurement import HourValue, Measurement, Window
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.policies import TaskPolicy

HOUR_METRICS = (
    "judge_score",
    "satisfaction",
    "completion",
    "refusals",
    "uncertainty",
    "answer_length",
    "prompt_length",
    "latency",
    "cost",
    "errors",
)
"""The metrics that `hours` knows."""


def measure(
    store: Store, task: str, adapter: str, baseline: Window, window: Window, *, policy: TaskPolicy | None = None
) -> list[Measurement]:
    """Measure every metric of a task's production traffic in a window beside a baseline.

    Metrics: ``answer_length``, ``prompt_length`` (characters), ``latency`` (ms), ``cost`` (USD), ``refusals``,
    ``uncertainty``, ``errors`` (rates), ``answer_terms``, ``prompt_terms``, ``answer_topics``, ``prompt_topics``,
    ``judge_score`` (one Measurement a judge version; any but the latest is named ``judge_score:<judge>#<rubric hash>``),
    ``satisfaction`` and ``completion``. Always all of them: what cannot be said has ``abstains``.

    Windows are read by whole hours: from the hour of ``since`` on, before the hour of ``until``; the two must not
    overlap.

    Args:
        store: migrated.
        task: its name.
        adapter: whose answers; ``""`` means all of the task's.
        baseline: what is normal.
        window: what is asked about.
        policy: the task's; says what completion is (``outcome`` or a check) and which rubric judges. Default policy
            without it.

    Returns:
        The measurements, in the order above.

    Raises:
        ValueError: a window that is empty, not aware, or overlaps the other.
        StoreError: ClickHouse refused or is away.
    """
    raise NotImplementedError


def hours(
    store: Store,
    task: str,
    adapter: str,
    metric: str,
    since: datetime,
    until: datetime,
    *,
    policy: TaskPolicy | None = None,
) -> list[HourValue]:
    """Give a metric's hours, oldest first; hours without an observation are left out, never 0.

    The present hour is among them while it lasts, and late events amend theirs: ask again. ``judge_score`` is of one
    judge version, the one that scored last before ``until``; hours that another version judged are left out.

    Args:
        store: migrated.
        task: its name.
        adapter: whose answers; ``""`` means all of the task's.
        metric: one of `HOUR_METRICS`.
        since: from this instant's hour on.
        until: before this instant's hour ends (an instant on the hour excludes the hour that it begins).
        policy: as `measure` has it.

    Returns:
        Mean and variance in the metric's unit: 0–1 for scores and rates, characters, ms, USD.

    Raises:
        ValueError: an unknown metric, or instants that are not aware.
        StoreError: ClickHouse refused or is away.
    """
    raise NotImplementedError

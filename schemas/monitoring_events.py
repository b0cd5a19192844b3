"""Events that say what moved: the drift rules' verdicts and the alerts that a person should look at."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ratchet.schemas.events import Closed, Count, Event, Instant, Share, Text64
from ratchet.schemas.ids import AdapterName, TaskName


class Moved(Closed):
    """One bin, term or topic, with its share of the baseline and of the window."""

    label: str
    before: Share
    now: Share


DriftVerdict = Literal["ok", "suspect", "drift", "abstain"]


class Drift(Event):
    """``drift.v1``: what one rule says of one metric of a task's adapter at the end of one hour.

    ``at`` is the end of the hour; an hour that late events amended is said again under the same id.
    """

    schema_: Literal["drift.v1"] = Field("drift.v1", alias="schema")
    task: TaskName
    adapter: AdapterName
    metric: Text64 = Field(description="e.g. 'answer_length', 'judge_score'")
    rule: Literal["shift", "page", "cusum", "detector", "rate"] = Field(
        description="'shift' compares two windows, the others follow the hours"
    )
    side: Literal["input", "output"] = "output"
    unit: Text64 = ""
    since: Instant = Field(description="begin of the window; it ends at 'at'")
    baseline_since: Instant | None = None
    baseline_until: Instant | None = None
    n_baseline: Count = 0
    n: Count = 0
    baseline: float | None = Field(None, description="the metric's mean in the baseline, in its unit")
    value: float | None = Field(None, description="likewise in the window")
    distances: dict[str, float] = Field(default_factory=dict)
    effect_name: str = Field("", description="what is compared with the threshold")
    effect: float | None = None
    threshold: float | None = None
    test: str = ""
    p_value: Share | None = None
    q_value: Share | None = Field(None, description="p_value after Benjamini–Hochberg over the hour's metrics")
    top: list[Moved] = Field(default_factory=list)
    verdict: DriftVerdict
    streak: Count = Field(0, description="hours in a row beyond the threshold, abstentions left out")
    calm: Count = Field(0, description="hours in a row within it, abstentions left out")
    reason: str = ""


class Alert(Event):
    """``alert.v1``: something that a person should look at, with what shows it and what to do.

    ``id`` is the alert's own: a later event with the same id says how it stands since, and ``at``
    is when that was said. A source derives it from what the alert is about, so it is not raised twice.
    """

    schema_: Literal["alert.v1"] = Field("alert.v1", alias="schema")
    task: TaskName | None = Field(None, description="absent where it concerns every task")
    adapter: AdapterName | None = None
    kind: Text64 = Field(description="what moved or broke, e.g. 'flood'")
    key: Text64 = Field("", description="what it is about: one alert at a time is open for a key")
    severity: Literal["info", "warning", "critical"]
    state: Literal["open", "acknowledged", "resolved"] = "open"
    since: Instant | None = Field(None, description="when it began, as far as the figures tell")
    title: Annotated[str, Field(min_length=1, max_length=256)]
    summary: str = Field("", description="what moved, from what to what, with n")
    action: str = Field("", description="what to do now")
    runbook: str = Field("", description="where it is written how to look and what to do")
    false_alarms_per_year: Annotated[float, Field(ge=0)] | None = Field(
        None, description="that its rule is expected to raise with nothing wrong; absent where it states a fact"
    )
    evidence: dict[str, Any] = Field(default_factory=dict)
    source: Text64 = Field(description="the part that raised it, e.g. 'ingest'")

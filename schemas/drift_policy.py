"""What a task's owner decides about drift: what counts as normal, and what moves far enough to be told of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed

Hours = Annotated[int, Field(ge=1, le=24 * 366)]
Effect = Annotated[float, Field(gt=0)]


class DriftPolicy(Closed):
    """When a metric of an adapter counts as moved.

    A shift alerts on effect AND significance AND persistence: its effect is beyond the metric's threshold, its
    p-value is below ``alpha`` after Benjamini–Hochberg over the window's metrics, and both in ``persistence`` windows
    in a row.
    """

    enabled: bool = True
    baseline_hours: Hours = 336
    """The first hours from an adapter's promotion on (the base model's: of its traffic), two weeks, are its baseline.

    For good; until they are over, what there is of them, from a day on. Two weeks tell the hours of the week apart.
    """
    window_hours: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 1
    """A shift compares windows of so many hours with the baseline, one after the other: more where traffic is thin."""
    lateness_s: Annotated[float, Field(ge=0, le=86_400)] = 900.0
    """An hour is judged this long after its end; events that come later still amend it for ``amend_hours``."""
    amend_hours: Annotated[int, Field(ge=1, le=168)] = 6
    """So many hours back are judged anew where late events changed them."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of false discoveries among a window's metrics."""
    persistence: Annotated[int, Field(ge=1, le=168)] = 3
    """Windows in a row."""
    resolve_hours: Annotated[int, Field(ge=1, le=168)] = 6
    """Good hours in a row, abstentions left out, after which an alert is resolved."""
    cooldown_hours: Annotated[int, Field(ge=0, le=168)] = 12
    """What moves again so soon after it was resolved opens the same alert again instead of raising a new one."""
    reminder_hours: Annotated[int, Field(ge=1, le=168)] = 24
    """An open alert's figures are said again this often where nothing else changes."""
    psi: Effect = 0.05
    """Of lengths: a typical length that moves by a fifth (docs/error-rates.md). 0.1 to 0.2 is called moderate."""
    js: Effect = 0.1
    """Of terms and topics: the distance."""
    relative: Effect = 0.1
    """Of means: latency, cost, scores."""
    difference: Effect = 0.02
    """Of rates, in points: 0.02 is two of a hundred answers."""
    thresholds: dict[str, Effect] = Field(default_factory=dict)
    """Of one metric instead, by its name: ``{answer_length = 0.1}``."""
    quality_drop: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The page: judged quality this much (relative) below its baseline …"""
    quality_hours: Annotated[int, Field(ge=1, le=168)] = 3
    """… in so many hours in a row."""
    min_n: Annotated[float, Field(ge=1)] = 20.0
    """An hour with fewer judged answers abstains in the rules that follow the hours."""

    @model_validator(mode="after")
    def _a_day_at_least(self) -> DriftPolicy:
        if self.baseline_hours < 24:
            raise ValueError(f"baseline_hours {self.baseline_hours}; allowed: at least 24")
        return self

"""What one metric did between a baseline and a window: the value between drift's SQL and drift's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Window:
    """The instants from ``since`` on and before ``until``, both aware."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Moved:
    """One bin, term or topic: its share of the baseline and of the window, 0–1."""

    label: str
    before: float
    now: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one task and adapter, in a window beside a baseline.

    ``value`` is the metric's mean (a rate for proportions) in its own ``unit``; ``distances`` are by name:
    ``ks`` and ``js`` (distance, natural log) 0–1, ``psi`` ≥ 0, ``wasserstein`` in the unit. ``effect`` is the one
    distance or difference that a rule compares with its threshold. ``abstains`` says why nothing can be said.
    """

    metric: str
    side: Side
    unit: str
    n_baseline: int
    n: int
    baseline: float | None = None
    value: float | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    effect_name: str = ""
    effect: float | None = None
    test: str = ""
    p_value: float | None = None
    top: tuple[Moved, ...] = ()
    abstains: str | None = None


@dataclass(frozen=True, slots=True)
class HourValue:
    """One hour of a metric that has a mean: what the sequential rules read.

    ``mean`` and ``variance`` (of one observation) are weighted by inverse inclusion probability where the hour
    was sampled; ``n`` is then the effective number of observations, (Σw)² / Σw².
    """

    hour: datetime
    n: float
    mean: float
    variance: float

"""How often each drift and quality rule cries wolf: the committed table of simulated days, read.

`error_rates.json` beside this file is written by ``python -m ratchet.consumers.error_rates_table`` (seeded; docs/
error-rates.md is its other half). An alert asks ``expected_false_alarms`` and states the answer.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from math import isfinite, sqrt
from typing import Any

from ratchet.consumers.rules.quality import Thresholds
from ratchet.consumers.rules.quality_baseline import Baseline
from ratchet.consumers.rules.rates import RateThresholds

RATE_RULES = ("bernoulli", "drift_rates")
OF_WEEK = "offsets for the hours of the week add up to 70% to it"
QUALITY_RULES = ("drop_alone", "page", "cusum", "detector")


@dataclass(frozen=True, slots=True)
class Expected:
    """False alarms a year of one rule, from the worst simulated cell around what was asked.

    Attributes:
        per_year: alarms a year in which nothing is wrong.
        low, high: its 95% interval.
        days: simulated days behind it.
        note: empty if the table covers what was asked; else what lies outside of it, so that the figure is that of
            the nearest cell and no promise.
    """

    per_year: float
    low: float
    high: float
    days: float
    note: str = ""


def expected_false_alarms(
    rule: str,
    n_per_hour: float,
    *,
    cv: float | None = None,
    between: float = 0.0,
    phi: float = 0.0,
    level: float = 0.0,
    baseline_hours: int | None = None,
    thresholds: Thresholds | RateThresholds | None = None,
) -> Expected:
    """Look a rule's false alarms a year up.

    Between the table's grid points the worst of the cells around counts; there is no interpolation to be wrong about.

    Args:
        rule: a name in the table.
        n_per_hour: (effective) observations in an hour.
        cv: standard deviation of one observation over the mean; another than the table's is turned into the number of
            observations with the same standard error. Not for rates, whose variance follows from ``level``.
        between: standard deviation of hours over the mean, beyond sampling.
        phi: correlation of neighbouring hours' effects.
        level: for rates, the baseline's rate.
        baseline_hours: hours that the baseline rests on; fewer than the table's are noted.
        thresholds: what the rule runs with; others than the table's are noted.

    Raises:
        ValueError: an unknown rule, or a figure outside its range; it says what is allowed.
    """
    whole = table()
    cells = [cell for cell in whole["cells"] if cell["rule"] == rule]
    if not cells:
        raise ValueError(f"rule={rule!r}; allowed: {', '.join(sorted({c['rule'] for c in whole['cells']}))}")
    for name, value in (("n_per_hour", n_per_hour), ("between", between), ("phi", phi), ("level", level)):
        if not isfinite(value) or value < 0:
            raise ValueError(f"{name}={value!r}; allowed: a number >= 0")
    notes = []
    if rule in QUALITY_RULES and cv is not None:
        if not (isfinite(cv) and cv >= 0):
            raise ValueError(f"cv={cv!r}; allowed: a number >= 0")
        n_per_hour = n_per_hour * (whole["cv"] / cv) ** 2 if cv > 0 else max(cell["n"] for cell in cells)
    if baseline_hours is not None and baseline_hours < whole["baseline_hours"]:
        notes.append(f"a baseline of {baseline_hours} hours, the table's have {whole['baseline_hours']}")
    if thresholds is not None:
        notes += _other(thresholds, whole["thresholds"]["rates" if rule in RATE_RULES else "quality"])
    for name, value in (("n", n_per_hour), ("level", level), ("between", between), ("phi", phi if between else 0.0)):
        # an effect of 0 has no correlation: its one cell stands for all of them
        grid = sorted({cell[name] for cell in cells if name != "phi" or cell["between"]}) or [0.0]
        around, outside = _around(value, grid)
        if outside:
            notes.append(f"{name}={value:.3g} is outside the table's {grid[0]:g}–{grid[-1]:g}")
        cells = [cell for cell in cells if cell[name] in around or (name == "phi" and not cell["between"])]
    worst = max(cells, key=lambda cell: (cell["false_alarms"]["per_year"], cell["false_alarms"]["high"]))
    found = worst["false_alarms"]
    return Expected(found["per_year"], found["low"], found["high"], found["days"], "; ".join(notes))


def expected_for(
    rule: str, baseline: Baseline, thresholds: Thresholds | RateThresholds | None = None, n: float | None = None
) -> Expected:
    """``expected_false_alarms`` of a rule that runs beside this baseline; ``n`` an hour if not the baseline's.

    Raises:
        ValueError: the baseline abstains, so that no rule runs beside it.
    """
    if baseline.abstains:
        raise ValueError(f"baseline: {baseline.abstains}; allowed: one that does not abstain")
    found = expected_false_alarms(
        rule,
        baseline.n if n is None else n,
        cv=sqrt(baseline.variance) / baseline.mean,
        between=sqrt(baseline.between) / baseline.mean,
        phi=baseline.phi,
        level=baseline.mean if rule in RATE_RULES else 0.0,
        baseline_hours=baseline.hours,
        thresholds=thresholds,
    )
    if not baseline.of_week or rule in RATE_RULES:
        return found
    return replace(found, note="; ".join(one for one in (found.note, OF_WEEK) if one))


@cache
def table() -> dict[str, Any]:
    """The committed table: ``seed``, ``days``, ``cv``, ``baseline_hours``, ``thresholds`` and ``cells``."""
    found: dict[str, Any] = json.loads(files("ratchet.consumers").joinpath("error_rates.json").read_text("utf-8"))
    return found


def _around(value: float, grid: Sequence[float]) -> tuple[set[float], bool]:
    """The grid points on both sides of a value, and whether it lies outside the grid."""
    at = bisect_left(grid, value)
    if at < len(grid) and grid[at] == value:
        return {grid[at]}, False
    return set(grid[max(at - 1, 0) : at + 1]), at in (0, len(grid))


def _other(thresholds: Thresholds | RateThresholds, made_with: dict[str, Any]) -> list[str]:
    mine: dict[str, Any] = json.loads(json.dumps(asdict(thresholds)))
    # a higher floor of observations only leaves hours out; n has a column of its own
    return [
        f"{name}={value} instead of the table's {made_with[name]}"
        for name, value in mine.items()
        if name != "min_n" and made_with[name] != value
    ]

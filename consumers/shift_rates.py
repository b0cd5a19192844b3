"""How often a shift's rule cries wolf on a task's own traffic and policy: simulated when an alert asks, and remembered.

The committed table has the default policy on made-up traffic; a task has thresholds, windows and hours of its own, and
thousands of days of them take a second at most.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from statistics import median

import numpy as np

from ratchet.consumers.error_rates import Expected
from ratchet.consumers.report import hours, term_hours
from ratchet.consumers.rules import shift_simulation
from ratchet.consumers.rules.drift_arrays import DriftLimits
from ratchet.consumers.rules.measurement import Side
from ratchet.consumers.rules.quality_baseline import Baseline, estimate
from ratchet.consumers.rules.shift_simulation import KINDS, Kind, Traffic
from ratchet.consumers.rules.simulation import false_alarms
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.monitoring_events import Drift
from ratchet.schemas.policies import TaskPolicy

SEED = 20261125
DAYS = 20
SERIES, OF_TERMS = 200, 50
"""Of so many days each: 4,000 days, 1,000 of terms, whose hundred counts take longer than all the rest."""
CHUNK = 50
UNKNOWN = "how much its hours vary is not known yet: hours that vary raise more"


def expected_of_shift(store: Store, said: Drift, policy: TaskPolicy, *, same_hours: bool) -> Expected:
    """The false alarms a year of the rule that said this, at this traffic's own variation and under this policy.

    Args:
        store: whose rollups tell how the metric's hours vary in the baseline.
        said: a shift.
        policy: the task's.
        same_hours: whether it was compared with the same hours of the week as well.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    metric, width = said.metric.partition(":")[0], policy.drift.window_hours
    baseline = _baseline(store, said, policy)
    if baseline.abstains is None:
        traffic = _traffic(KINDS[metric], baseline)
    else:
        level = said.baseline if KINDS[metric] == "rates" and said.baseline is not None else 0.0
        traffic = _traffic(KINDS[metric], Baseline(mean=level or 1.0, n=said.n / width))
    found = simulated(traffic, shift_simulation.limits(metric, policy.drift), width, same_hours)
    return found if baseline.abstains is None else Expected(found.per_year, found.low, found.high, found.days, UNKNOWN)


@lru_cache(maxsize=512)
def simulated(traffic: Traffic, rule: DriftLimits, width: int, same_hours: bool) -> Expected:
    """False alarms a year of a rule over a traffic's windows of ``width`` hours; the same for the same arguments."""
    random = np.random.default_rng(SEED)
    series = OF_TERMS if traffic.kind == "terms" else SERIES
    raised = []
    for _ in range(0, series, CHUNK):  # texts of all series at once would take a gigabyte
        effect, p = shift_simulation.windows(
            random, traffic, CHUNK, DAYS * 24 // width, width=width, same_hours=same_hours
        )
        raised.append(shift_simulation.raised(random, traffic, rule, effect, p, width))
    found = false_alarms(np.concatenate(raised), width)
    return Expected(found.per_year, found.low, found.high, found.days)


def _traffic(kind: Kind, baseline: Baseline) -> Traffic:
    """The variation of a baseline, rounded to two digits so that the next alert finds what this one simulated."""
    mean = baseline.mean

    def two(value: float) -> float:
        return float(f"{value:.2g}")

    return Traffic(
        kind,
        n=max(1.0, two(baseline.n)),
        between=two(sqrt(baseline.between) / mean) if mean else 0.0,
        phi=two(baseline.phi),
        level=two(mean) if kind == "rates" else 0.0,
        spread=max(0.01, two(sqrt(baseline.variance) / mean)) if kind == "means" and mean else 1.0,
    )


def _baseline(store: Store, said: Drift, policy: TaskPolicy) -> Baseline:
    metric = said.metric.partition(":")[0]
    if said.baseline_since is None:
        return Baseline(abstains="no baseline")
    span = (said.baseline_since, said.since)
    if KINDS[metric] in ("terms", "topics"):
        side: Side = "input" if metric.startswith("prompt") else "output"
        shares = term_hours(store, said.task, said.adapter, side, *span)
        each = [estimate(values, min_n=policy.drift.min_n) for values in shares.values()]
        return _middle([one for one in each if one.abstains is None and one.mean > 0])
    values = hours(store, said.task, said.adapter, metric, *span, policy=policy)
    return estimate(values, min_n=policy.drift.min_n)


def _middle(baselines: list[Baseline]) -> Baseline:
    """What the common terms' hours do in the middle: the relative deviation between hours, and its correlation."""
    if not baselines:
        return Baseline(abstains="no terms")
    relative = median(sqrt(one.between) / one.mean for one in baselines)
    return Baseline(
        mean=1.0,
        between=relative**2,
        phi=median(one.phi for one in baselines),
        n=median(one.n for one in baselines),
    )

"""`make bench-rollout`: how often rollouts are wrong, and how long they take, by thousands of simulated ones.

Made-up traffic goes through the real rules (`deciding.decide`, `rollout.apply`) from shadow to the end under the
default policy. A rollout is looked at every half hour where the controller looks every two seconds, and every five
minutes where requests until an abort are counted; the rows `looks` show what that changes. Completion is told by
outcome events, which a shadow stage cannot show, but in the rows `check`. The rows `users` have 10,000 of them, of
lognormal activity and correlated within themselves; `users unknown` is what would become of it without clustering. The
last line of output is one JSON object; every figure has its 95% interval and the number of rollouts. `--scale 0.1` is a
quick one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ratchet.schemas.rollout_policy import BurstPolicy, RolloutPolicy
from ratchet.services.rules.rollouts.evidence import Burst
from ratchet.services.rules.rollouts.guards import burst_reason
from ratchet.services.rules.rollouts.simulation import Outcome, simulate
from ratchet.services.rules.rollouts.summary import Figure, Summary, mean, share, summarise
from ratchet.services.rules.rollouts.traffic import Signal, Traffic

SEED = 20261129
POLICY = RolloutPolicy()
METRICS = [gate.metric for gate in POLICY.gates]
MINUS_2, MINUS_8 = {"completion": -0.02}, {"completion": -0.08}
USERS = {"users": 10_000, "activity_sd": 1.0}
PART = 50
"""Rollouts a task: small enough that both cores end together."""


def traffic(delay_h: float = 0.0, check: bool = False, **more: Any) -> Traffic:
    """5,000 requests an hour; 90% completed, 1% errors, 10% with a thumb of which 80% are up, lognormal latencies."""
    signals = {
        "completion": Signal(0.9, delay_h=delay_h, mirrored=check),
        "error_rate": Signal(0.01),
        "satisfaction": Signal(0.8, share=0.1, delay_h=delay_h, mirrored=False),
        "latency_p95": Signal(1.0),
    }
    return Traffic(5_000, signals, **more)


@dataclass(frozen=True)
class Row:
    """One kind of candidate in one kind of traffic; ``n`` rollouts."""

    name: str
    difference: Mapping[str, float]
    n: int
    look_h: float = 0.5
    traffic: Traffic = field(default_factory=traffic)
    users_known: bool = True


ROWS = [
    Row("equal", {}, 1_000),
    Row("completion −2", MINUS_2, 2_000),
    Row("completion −4", {"completion": -0.04}, 200),
    Row("completion −8", MINUS_8, 500, 1 / 12),
    Row("error rate +0.5", {"error_rate": 0.005}, 300),
    Row("P95 × 1.2", {"latency_p95": 0.2}, 300),
    Row("satisfaction −5", {"satisfaction": -0.05}, 600),
    Row("check, equal", {}, 200, traffic=traffic(check=True)),
    Row("check, −2", MINUS_2, 400, traffic=traffic(check=True)),
    Row("check, −8", MINUS_8, 300, 1 / 12, traffic(check=True)),
    Row("labels 6 h late, equal", {}, 200, traffic=traffic(6)),
    Row("labels 6 h late, −2", MINUS_2, 600, traffic=traffic(6)),
    Row("labels 6 h late, −8", MINUS_8, 200, 1 / 12, traffic(6)),
    Row("users, equal", {}, 150, 1.0, traffic(**USERS)),
    Row("users, −2", MINUS_2, 400, 1.0, traffic(**USERS)),
    Row("users, −8", MINUS_8, 100, 0.25, traffic(**USERS)),
    Row("users unknown, equal", {}, 100, 1.0, traffic(**USERS), users_known=False),
    Row("users unknown, −2", MINUS_2, 400, 1.0, traffic(**USERS), users_known=False),
    Row("looks every 6 min, −2", MINUS_2, 400, 0.1),
    Row("looks every 2 h, −2", MINUS_2, 1_000, 2.0),
]


def part(row: Row, at: int, n: int) -> list[Outcome]:
    """Some of a row's rollouts."""
    seed = SEED + 1_000 * ROWS.index(row) + at
    return list(simulate(POLICY, row.traffic, row.difference, n, seed, row.look_h, users_known=row.users_known))


def naive(random: np.random.Generator, change: float, rollouts: int = 20_000) -> float:
    """Rollouts that the naive gate promotes: the point estimate at the first look with ``min_n``, at the 5% stage."""
    gate, n = POLICY.gates[0], POLICY.gates[0].min_n
    stable = random.binomial(19 * n, 0.9, rollouts) / (19 * n)
    candidate = random.binomial(n, 0.9 + change, rollouts) / n
    return float((candidate - stable > -gate.margin).sum())


def bursts(random: np.random.Generator, failing: float, calls_per_hour: float, weight: float, hours: int) -> int:
    """Bursts of a healthy candidate: its calls one after another, the window asked whenever one of them fails."""
    policy: BurstPolicy = POLICY.burst
    times = [
        np.sort(random.uniform(0, hours * 3600, random.poisson(hours * calls_per_hour * w)))
        for w in (1 - weight, weight)
    ]
    failed = [random.random(len(one)) < failing for one in times]
    sums = [np.concatenate([[0], np.cumsum(one)]) for one in failed]
    found, quiet_until = 0, 0.0
    for index in np.flatnonzero(failed[1]):
        now = times[1][index]
        since = [int(np.searchsorted(one, now - policy.window_s)) for one in times]
        until = [int(np.searchsorted(times[0], now)), int(index) + 1]
        counts = [(until[arm] - since[arm], int(sums[arm][until[arm]] - sums[arm][since[arm]])) for arm in (0, 1)]
        if now >= quiet_until and burst_reason(Burst(*counts[0], *counts[1]), policy):
            found, quiet_until = found + 1, now + policy.window_s
    return found


def until_proved(outcomes: list[Outcome]) -> Figure | None:
    """The candidate's requests with users until its completion was proved, at the 5% stage."""
    per_hour = ROWS[0].traffic.requests_per_hour * 0.05
    return mean([hours * per_hour for one in outcomes if (hours := one.passed.get(("5%", "completion"))) is not None])


def line(name: str, got: Summary) -> str:
    """A row of the table."""

    def shown(figure: Figure | None, scale: float = 100.0, unit: str = "%") -> str:
        if figure is None:
            return "–"
        return f"{scale * figure.value:.1f}{unit} ({scale * figure.low:.1f}–{scale * figure.high:.1f})"

    hours = f"{got.hours.median:.0f} / {got.hours.p90:.0f}" if got.hours else "–"
    stuck = ", ".join(f"{gate} {k}" for gate, k in got.stuck.items())
    requests = shown(got.harm_requests if got.aborted.value > 0.5 else got.requests, 1, "")
    return (
        f"| {name} | {got.rollouts} | {shown(got.promoted)} | {shown(got.aborted)} | {shown(got.paused)} |"
        f" {requests} | {hours} | {stuck} |"
    )


def main() -> int:
    """Simulate all rows and print them; JSON last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="rollouts times this")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2))
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row.name]
    begun, summaries, outcomes = time.perf_counter(), {}, {}
    print("| candidate | rollouts | promoted | aborted | paused | requests | hours, median / P90 | paused by |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        asked = {}
        for row in rows:
            n = max(math.ceil(row.n * options.scale), 20)
            asked[row.name] = [pool.submit(part, row, at, min(PART, n - at)) for at in range(0, n, PART)]
        for name, tasks in asked.items():
            outcomes[name] = [one for task in tasks for one in task.result()]
            summaries[name] = summarise(outcomes[name], METRICS)
            print(line(name, summaries[name]), flush=True)
    random = np.random.default_rng(SEED)
    total = 20_000
    figures: dict[str, Any] = {
        "mean_n_equal_completion": asdict(proved) if (proved := until_proved(outcomes.get("equal", []))) else None,
        "naive_false_promotion": asdict(share(round(naive(random, -0.02)), total)),
        "naive_promotion_equal": asdict(share(round(naive(random, 0.0)), total)),
        "seed": SEED,
        "seconds": round(time.perf_counter() - begun, 1),
        "processor_seconds": round(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), 1),
    }
    hours = 500
    for failing in (0.01, 0.05, 0.2):
        found = {f"{w:.0%}": bursts(random, failing, 5_000, w, hours) for w in (0.05, 0.5)}
        figures[f"burst_alarms_in_{hours}_h_at_{failing:.0%}_errors"] = found
    split = [one for name, one in summaries.items() if "−8" not in name]
    if split:
        n = sum(one.rollouts for one in split)
        figures["srm_false_alarms"] = asdict(share(sum(one.mismatches for one in split), n))
    figures["rows"] = {name: asdict(one) for name, one in summaries.items()}
    named = {
        "false_promotion_at_margin": ("completion −2", "promoted"),
        "promotion_equal": ("equal", "promoted"),
        "false_abort_equal": ("equal", "aborted"),
        "mean_n_equal": ("equal", "requests"),
        "mean_n_abort_minus8": ("completion −8", "harm_requests"),
    }
    head = {key: asdict(getattr(summaries[row], what)) for key, (row, what) in named.items() if row in summaries}
    print(json.dumps(head | figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Simulates the table of error rates: ``python -m ratchet.consumers.error_rates_table`` (make error-rates).

Each cell is 10,000 days of hours in which nothing is wrong, 500 series of 20 days with a baseline of two weeks each,
and 500 series a shift for the delay; seeded cell by cell, so that a part of it comes out the same alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ratchet.consumers.rules import shift_simulation, simulation
from ratchet.consumers.rules.drift_arrays import persistent
from ratchet.consumers.rules.quality import Thresholds
from ratchet.consumers.rules.quality_arrays import Bools
from ratchet.consumers.rules.rates import RateThresholds
from ratchet.consumers.rules.shift_simulation import Traffic
from ratchet.consumers.rules.simulation import Noise
from ratchet.consumers.shift_rates import CHUNK

SEED = 20261125
SERIES, HOURS, HORIZON = 500, 480, 240
# an hour of 10 abstains by default; the table shows what it would do
QUALITY = Thresholds(min_n=10)
RATES = RateThresholds()
CHANGES: dict[str, tuple[float, ...]] = {
    "quality": (-0.05, -0.07, -0.10),
    "rates": (0.02, 0.05, 0.10),
    "lengths": (0.10, 0.20, 0.50),
    "means": (0.10, 0.20, 0.50),
    "topics": (0.05, 0.10, 0.20),
    "terms": (0.10, 0.20, 0.40),
}
SHIFTED = {
    "rates": "refusals",
    "lengths": "answer_length",
    "means": "latency",
    "topics": "answer_topics",
    "terms": "answer_terms",
}
"""A metric whose default limits each kind's shifts are judged by."""
FEWER = {"terms": 100}
"""Series, where 500 would take an hour: a hundred terms are counted in every hour."""

Kind = Literal["quality", "rates", "lengths", "means", "topics", "terms"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One kind of hours, over which all rules of its kind run; ``level`` is the rate, 0 for what is none."""

    kind: Kind
    noise: Noise
    level: float = 0.0


def settings() -> list[Setting]:
    """Every setting of the table."""
    hours = [(0.0, 0.0), *product((0.01, 0.12 / 4.2, 0.06), (0.0, 0.5, 0.7, 0.9))]
    spread = [(0.0, 0.0), *product((0.1, 0.3), (0.0, 0.7))]
    few = [(0.0, 0.0), *product((0.05, 0.15), (0.0, 0.7))]
    return [
        *(Setting("quality", Noise(n, *each)) for n, each in product((10, 20, 50, 100, 200, 500, 2000), hours)),
        *(
            Setting("rates", Noise(n, *each), p)
            for p, n, each in product((0.005, 0.02, 0.1), (50, 500, 5000, 50_000), spread)
        ),
        *(Setting("lengths", Noise(n, *each)) for n, each in product((500, 5000, 50_000), few)),
        *(Setting("means", Noise(n, *each, cv=1.0)) for n, each in product((50, 500, 5000), few)),
        *(Setting("topics", Noise(n, *each)) for n, each in product((500, 5000), few)),
        *(Setting("terms", Noise(n, *each)) for n, each in product((500, 5000), few)),
    ]


def cells(setting: Setting, series: int = SERIES) -> Iterator[dict[str, Any]]:
    """Simulate one setting; one cell for each of its rules."""
    noise = setting.noise
    key = [SEED, list(CHANGES).index(setting.kind), int(noise.n)]
    key += [round(1e6 * value) for value in (noise.between, noise.phi, setting.level)]
    random = np.random.default_rng(key)

    series = FEWER.get(setting.kind, series)

    def run(hours: int, change: float) -> dict[str, Bools]:
        if setting.kind == "quality":
            return simulation.quality(random, simulation.quality_rules(QUALITY), noise, series, hours, change)
        follow: dict[str, Bools] = {}
        if setting.kind == "rates":
            follow = simulation.rate(random, simulation.rate_rules(RATES), setting.level, noise, series, hours, change)
        return follow | _shifted(random, setting, series, hours, change)

    calm = run(HOURS, 0.0)
    moved = {f"{change:+g}": run(simulation.WARM + HORIZON, change) for change in CHANGES[setting.kind]}
    for rule, raised in calm.items():
        yield {
            "rule": rule,
            "n": noise.n,
            "level": setting.level,
            "between": round(noise.between, 5),
            "phi": noise.phi,
            "false_alarms": _short(asdict(simulation.false_alarms(raised))),
            "delay": {
                change: _short(asdict(simulation.delay(each[rule], simulation.WARM))) for change, each in moved.items()
            },
        }


def _shifted(random: np.random.Generator, setting: Setting, series: int, hours: int, change: float) -> dict[str, Bools]:
    """Where the rule over shifts is raised; for lengths also where Kolmogorov–Smirnov's p alone would be."""
    assert setting.kind != "quality"
    noise = setting.noise
    traffic = Traffic(setting.kind, noise.n, noise.between, noise.phi, setting.level, noise.cv)
    rule = shift_simulation.limits(SHIFTED[setting.kind])
    raised, p_values = [], []
    for _ in range(0, series, CHUNK):
        effect, p = shift_simulation.windows(random, traffic, CHUNK, hours, change=change)
        raised.append(shift_simulation.raised(random, traffic, rule, effect, p))
        p_values.append(p)
    found = {f"drift_{setting.kind}": np.concatenate(raised)}
    if setting.kind == "lengths":
        alone = np.concatenate(p_values) < rule.q
        found["ks_alone"] = persistent(alone, np.ones(alone.shape, dtype=bool), 1)
    return found


def make() -> dict[str, Any]:
    """Simulate the whole table, saying on standard error how far it is."""
    made: list[dict[str, Any]] = []
    todo = settings()
    for done, setting in enumerate(todo, 1):
        made += cells(setting)
        if done % 10 == 0 or done == len(todo):
            print(f"{done} of {len(todo)} settings", file=sys.stderr, flush=True)  # noqa: T201
    return {
        "seed": SEED,
        "days": SERIES * HOURS / 24,
        "cv": simulation.CV,
        "baseline_hours": Noise(1).baseline_hours,
        "horizon_hours": HORIZON,
        "thresholds": {"quality": asdict(QUALITY), "rates": asdict(RATES)},
        "cells": made,
    }


def main() -> None:
    """Write the data file, and the page with its picture if a folder for them is given."""
    parser = argparse.ArgumentParser(description="simulate the rules' error rates and write the table")
    parser.add_argument("--docs", type=Path, help="folder for error-rates.md and error-rates.svg")
    options = parser.parse_args()
    begun = time.process_time()
    whole = make()
    target = Path(__file__).with_name("error_rates.json")
    lines = ",\n".join(json.dumps(cell) for cell in whole.pop("cells"))
    head = json.dumps(whole)[:-1]
    target.write_text(f'{head}, "cells": [\n{lines}\n]}}\n', "utf-8")
    print(f"{target.name}: {len(settings())} settings in {time.process_time() - begun:.0f} s of one core")  # noqa: T201
    if options.docs:
        from ratchet.consumers.error_rates_page import write

        write(json.loads(target.read_text("utf-8")), options.docs)


def _short(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    main()

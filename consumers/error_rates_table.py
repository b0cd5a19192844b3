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
from typing import Any

import numpy as np

from ratchet.consumers.rules import simulation
from ratchet.consumers.rules.quality import Thresholds
from ratchet.consumers.rules.rates import RateThresholds
from ratchet.consumers.rules.simulation import Noise

SEED = 20261125
SERIES, HOURS, HORIZON = 500, 480, 240
# an hour of 10 abstains by default; the table shows what it would do
QUALITY = Thresholds(min_n=10)
RATES = RateThresholds()
DROPS = (0.05, 0.07, 0.10)
RISES = (0.02, 0.05, 0.10)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the simulation: a kind of rule over a kind of hours; ``level`` is the rate, 0 for scores."""

    level: float
    noise: Noise


def settings() -> list[Setting]:
    """Every setting of the table."""
    hours = [(0.0, 0.0), *product((0.01, 0.12 / 4.2, 0.06), (0.0, 0.5, 0.7, 0.9))]
    quality = [Setting(0.0, Noise(n, *each)) for n, each in product((10, 20, 50, 100, 200, 500, 2000), hours)]
    spread = [(0.0, 0.0), *product((0.1, 0.3), (0.0, 0.7))]
    rates = [Setting(p, Noise(n, *each)) for p, n, each in product((0.005, 0.02, 0.1), (50, 200, 1000, 5000), spread)]
    return quality + rates


def cells(setting: Setting, series: int = SERIES) -> Iterator[dict[str, Any]]:
    """Simulate one setting; one cell for each of its rules."""
    noise = setting.noise
    key = [SEED, int(noise.n), *(round(1e6 * value) for value in (noise.between, noise.phi, setting.level))]
    random = np.random.default_rng(key)

    def run(hours: int, change: float) -> dict[str, simulation.Bools]:
        if setting.level:
            rules = simulation.rate_rules(RATES)
            return simulation.rate(random, rules, setting.level, noise, series, hours, change)
        return simulation.quality(random, simulation.quality_rules(QUALITY), noise, series, hours, change)

    calm = run(HOURS, 0.0)
    changes = RISES if setting.level else tuple(-drop for drop in DROPS)
    moved = {f"{change:+g}": run(simulation.WARM + HORIZON, change) for change in changes}
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


def make() -> dict[str, Any]:
    """Simulate the whole table, saying on standard error how far it is."""
    made: list[dict[str, Any]] = []
    todo = settings()
    for done, setting in enumerate(todo, 1):
        made += cells(setting)
        print(f"\r{done} of {len(todo)} settings", end="", file=sys.stderr, flush=True)  # noqa: T201
    print(file=sys.stderr)  # noqa: T201
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

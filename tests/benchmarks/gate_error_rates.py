"""How often each gate before the shadow stage passes a candidate that is just as bad as it allows.

Rates are exact (all outcomes are summed up), everything else is simulated. The table of docs/evaluation.md:
`python tests/benchmarks/gate_error_rates.py` takes about ten minutes; the last line is JSON.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.evaluation_policy import EvaluationGate
from ratchet.trainers.rules import paired
from ratchet.trainers.rules.acceptance import answer
from ratchet.trainers.rules.measures import Observed, Value

SEED, ROUNDS, ALPHA = 20261125, 400, 0.05
Z = stats.norm.ppf(1 - ALPHA)


def floors(n: int) -> float:
    """The greatest share over floors from 50% to 99%."""
    worst = 0.0
    for floor in np.arange(0.50, 0.995, 0.01):
        passed = [k for k in range(n + 1) if wilson(k, n, 1 - 2 * ALPHA)[0] > floor]
        worst = max(worst, float(stats.binom.pmf(passed, n, floor).sum()))
    return worst


def margins(n: int) -> float:
    """The greatest share over margins of 2, 5 and 10 points and over how often the two models differ."""
    worst = 0.0
    won, lost = (one.ravel() for one in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    won, lost = won[won + lost <= n], lost[won + lost <= n]
    for margin in (0.02, 0.05, 0.10):
        passed = np.array([paired.score(ours, theirs, n, -margin) > Z for ours, theirs in zip(won, lost, strict=True)])
        for apart in (0.0, 0.01, 0.03, 0.1, 0.2):
            chances = [apart, apart + margin, 1 - 2 * apart - margin]
            counts = np.stack([won, lost, n - won - lost], axis=1)
            worst = max(worst, float(stats.multinomial.pmf(counts[passed], n, chances).sum()))
    return worst


def simulated(gate: dict[str, Any], draw: Callable[[np.random.Generator, int], tuple[Any, Any]], n: int) -> float:
    """The share of candidates at the bound that pass."""
    rng, asked = np.random.default_rng(SEED), EvaluationGate.model_validate(gate)
    passed = 0
    for seed in range(ROUNDS):
        candidate, stable = draw(rng, n)
        other = None if stable is None else _observed(stable)
        passed += answer(asked, _observed(candidate), other, seed).verdict == "pass"
    return passed / ROUNDS


def _observed(values: Any) -> Observed:
    rows = values.tolist()
    named: dict[str, Value] = {f"{n:06}": tuple(one) if isinstance(one, list) else (one,) for n, one in enumerate(rows)}
    return Observed(named)


def _overlap(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """ROUGE-L: prompts are hard or easy for both, and each has noise of its own; 5 points apart."""
    hard = rng.beta(2, 2, n)
    return hard + rng.normal(0, 0.15, n) - 0.05, hard + rng.normal(0, 0.15, n)


def _latency(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Lognormal latencies with σ 0.5; the candidate takes 20% longer."""
    length = rng.normal(0, 0.3, n)
    return np.exp(5 + length + rng.normal(0, 0.4, n)) * 1.2, np.exp(5 + length + rng.normal(0, 0.4, n))


def _throughput(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Tokens and seconds; the candidate's tokens take 1 / 0.9 of stable's time."""
    tokens = rng.integers(20, 200, size=(2, n)).astype(float)
    seconds = tokens / 50 * rng.lognormal(0, 0.3, size=(2, n))
    return np.stack([tokens[0], seconds[0] / 0.9], axis=1), np.stack([tokens[1], seconds[1]], axis=1)


def _shares(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """A relative margin of 10% of a stable rate of 80%: 80% against 72%."""
    kind = rng.choice(4, size=n, p=[0.66, 0.14, 0.06, 0.14])
    return np.isin(kind, [0, 2]).astype(float), np.isin(kind, [0, 1]).astype(float)


def main() -> int:
    """Print the table, and its figures as JSON."""
    ns = [int(one) for one in sys.argv[1:]] or [50, 100, 200]
    tenth, fifth = ({"margin": share, "margin_kind": "rel"} for share in (0.1, 0.2))
    simulations: dict[str, tuple[dict[str, Any], Any]] = {
        "rate, relative margin (10%)": ({"metric": "completion"} | tenth, _shares),
        "mean, margin (ROUGE-L, 5 points)": ({"metric": "rouge_l", "margin": 0.05}, _overlap),
        "P50 latency, relative margin (20%)": ({"metric": "latency_p50"} | fifth, _latency),
        "P95 latency, relative margin (20%)": ({"metric": "latency_p95"} | fifth, _latency),
        "throughput, relative margin (10%)": ({"metric": "throughput"} | tenth, _throughput),
    }
    measures: dict[str, Callable[[int], float]] = {
        "rate, floor or ceiling (exact, worst of 50–99%)": floors,
        "rate, margin (exact, worst of 2, 5 and 10 points)": margins,
    }
    measures |= {name: partial(simulated, gate, draw) for name, (gate, draw) in simulations.items()}
    print("| gate | " + " | ".join(f"n = {n}" for n in ns) + " |")
    print("|---|" + "---|" * len(ns), flush=True)
    found = {}
    for name, measure in measures.items():
        found[name] = {n: measure(n) for n in ns}
        print(f"| {name} | " + " | ".join(f"{found[name][n]:.1%}" for n in ns) + " |", flush=True)
    error = math.sqrt(ALPHA * (1 - ALPHA) / ROUNDS)
    print(json.dumps({"seed": SEED, "rounds": ROUNDS, "standard_error": round(error, 4), "false_passes": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

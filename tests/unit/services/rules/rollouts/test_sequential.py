"""The sequential bounds beside other people's: Lan and DeMets, spotify-confidence, scipy, Brownian motion."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from ratchet.schemas.rollout_policy import Gate
from ratchet.services.rules.rollouts import gates
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Sample, Split
from ratchet.services.rules.rollouts.guards import log_e_mismatch, mismatch_reason
from ratchet.services.rules.rollouts.sequential import OVERSHOOT, pass_radius, radius

ALPHA = 0.05
CONFIDENCE = Path(sys.prefix) / "confidence"
"""spotify-confidence and the pandas that it needs, beside the packages (`make .venv/.confidence`)."""
_GRID = 800
_ASK = """
import importlib.util, json, sys
import numpy as np
spec = importlib.util.spec_from_file_location("solver", sys.argv[1])
solver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solver)
times = np.array(json.loads(sys.argv[2]))
print(json.dumps(solver.bounds(times, alpha=0.05, rho=2, ztrun=8, sides=1).bounds.tolist()))
"""


def lan_demets(times: NDArray[np.float64], spent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds on the z-scale that spend so much by each time: recursive integration (Armitage et al. 1969)."""
    bounds = [float(stats.norm.isf(spent[0]) * math.sqrt(times[0]))]
    grid = np.linspace(-8 * math.sqrt(times[-1]), bounds[0], _GRID)
    density = stats.norm.pdf(grid, scale=math.sqrt(times[0]))
    for step, increment in zip(np.diff(times), np.diff(spent), strict=True):
        sd = math.sqrt(step)
        crossed = optimize.brentq(_too_often, -8, 8 * times[-1] + 8, args=(grid, density, sd, increment))
        following = np.linspace(grid[0], crossed, _GRID)
        steps = np.exp(-0.5 * ((following[:, None] - grid[None, :]) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
        density = np.trapezoid(density[None, :] * steps, grid, axis=1)
        grid = following
        bounds.append(float(crossed))
    return np.array(bounds) / np.sqrt(times)


def _too_often(b: float, grid: NDArray[np.float64], density: NDArray[np.float64], sd: float, allowed: float) -> float:
    return float(np.trapezoid(density * stats.norm.sf((b - grid) / sd), grid)) - allowed


def obrien_fleming(times: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Alpha spent by a time: O'Brien and Fleming's type (Lan and DeMets 1983)."""
    return 2 * stats.norm.sf(stats.norm.isf(alpha / 2) / np.sqrt(times))


def ours(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Our bound on the z-scale, with the last look at the planned information."""
    return np.array([pass_radius(t, 1 / OVERSHOOT, ALPHA) * math.sqrt(t) for t in times])


def test_the_recursion_gives_the_published_bounds() -> None:
    """Five looks at 0.025: 4.877, 3.357, 2.680, 2.290, 2.031 (Jennison and Turnbull; ldbounds; DeMets and Lan 1994)."""
    times = np.arange(1, 6) / 5
    bounds = lan_demets(times, obrien_fleming(times, 0.025))
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=2e-3)


@pytest.mark.parametrize("times", [[0.2, 0.4, 0.6, 0.8, 1.0], [0.1, 0.35, 0.5, 0.9, 1.0]])
def test_the_recursion_gives_spotifys_bounds(times: list[float]) -> None:
    """With the spending function that spotify-confidence has (alpha t²), at even looks and uneven ones."""
    solver = CONFIDENCE / "spotify_confidence/analysis/frequentist/sequential_bound_solver.py"
    if not solver.exists():
        pytest.skip("no spotify-confidence beside the packages: make .venv/.confidence")
    command = [sys.executable, "-W", "ignore", "-c", _ASK, str(solver), json.dumps(times)]
    told = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(CONFIDENCE)}, capture_output=True, text=True, check=True
    )
    moments = np.array(times)
    assert lan_demets(moments, ALPHA * moments**2) == pytest.approx(json.loads(told.stdout), abs=2e-3)


def test_our_bound_is_the_limit_of_ever_more_looks() -> None:
    """At each look at or above Lan and DeMets', and nearer with more of them, by Siegmund's correction 0.583 √Δt."""
    above = []
    for looks in (5, 20, 60):
        times = np.arange(1, looks + 1) / looks
        bounds = lan_demets(times, obrien_fleming(times, ALPHA))
        assert np.all(ours(times) >= bounds - 2e-3)
        above.append(float((ours(times) - bounds)[-1]))
    assert above[0] > above[1] > above[2] > 0
    assert above[1:] == pytest.approx([0.583 / math.sqrt(20), 0.583 / math.sqrt(60)], rel=0.25)


def test_a_brownian_motion_crosses_our_bound_as_often_as_it_may() -> None:
    """Simulated at 500 looks: alpha, less what happens between looks (Siegmund 1985)."""
    rng, looks, paths = np.random.default_rng(7), 500, 20_000
    times = np.arange(1, looks + 1) / looks
    bound = ours(times) * np.sqrt(times)
    score, crossed = np.zeros(paths), np.zeros(paths, dtype=bool)
    for at in range(looks):
        score += rng.normal(size=paths) / math.sqrt(looks)
        crossed |= score > bound[at]
    expected = 2 * stats.norm.sf(bound[-1] + 0.583 / math.sqrt(looks))
    assert 0.04 < expected < ALPHA
    assert crossed.mean() == pytest.approx(expected, abs=0.004)


def test_a_brownian_motion_seldom_leaves_the_bound_for_failing() -> None:
    """The mixture's bound, looked at from a hundredth to a hundred times the planned information: at most alpha."""
    rng, paths = np.random.default_rng(8), 20_000
    times = np.geomspace(0.01, 100, 800)
    score, left = np.zeros(paths), np.zeros(paths, dtype=bool)
    for step, t in zip(np.diff(times, prepend=0.0), times, strict=True):
        score += rng.normal(size=paths) * math.sqrt(step)
        left |= score / t > radius(t, 1.0, ALPHA)
    assert 0.01 < left.mean() <= ALPHA


def test_what_passes_or_fails_on_latency_is_significant_for_scipy_too() -> None:
    """At one look the exact quantile test (binomial) rejects wherever the e-process does, which holds at every look."""
    gate = Gate(metric="latency_p95", margin=0.2, margin_kind="rel")
    verdicts = set()
    for n in (400, 1_000, 3_000):
        for k in range(0, n // 8, max(n // 200, 1)):
            seen = Exceedances(10**9, 100.0, 120.0, Sample.proportion(n, k))
            verdict = gates.evaluate(gate, Evidence((seen,))).verdict
            calls = np.concatenate([np.full(n - k, 110.0), np.full(k, 130.0)])
            if verdict == "pass":
                assert stats.quantile_test(calls, q=120, p=0.95, alternative="less").pvalue < ALPHA
            elif verdict == "fail":
                assert stats.quantile_test(calls, q=120, p=0.95, alternative="greater").pvalue < ALPHA
            verdicts.add(verdict)
    assert verdicts == {"pass", "fail", "inconclusive"}


def test_an_unfair_split_is_unfair_for_chi_square_too() -> None:
    """At one look scipy's chi-square rejects wherever ours does; a gross mismatch both see."""
    share, found = 0.05, 0
    for n in (500, 5_000, 50_000):
        for k in range(0, n // 5, max(n // 250, 1)):
            if mismatch_reason(Split(n - k, k, 500), 0.001):
                found += 1
                assert stats.chisquare([n - k, k], [n * (1 - share), n * share]).pvalue < 0.001
    assert found > 50
    assert log_e_mismatch(5_000, 400, share) > math.log(1_000)

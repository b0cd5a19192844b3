"""Drift rules in numpy: held to scipy and to the distances of the report."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ratchet.consumers.rules import distances
from ratchet.consumers.rules.drift import Run, rule_on
from ratchet.consumers.rules.drift_arrays import (
    DriftLimits,
    among,
    benjamini_hochberg,
    length_distances,
    mean_distances,
    persistent,
)
from ratchet.consumers.rules.measurement import Measurement
from ratchet.consumers.rules.shift_simulation import METRICS, limits
from ratchet.schemas.drift_policy import DriftPolicy


def test_benjamini_hochberg_is_scipys() -> None:
    """What is rejected is what scipy's adjusted p-values reject, in any order, ties included."""
    random = np.random.default_rng(1)
    for count in (1, 2, 10):
        p = random.beta(0.3, 1.5, (300, count))
        p[::3, -1] = p[::3, 0]
        oracle = stats.false_discovery_control(p, axis=-1) < 0.05
        assert (benjamini_hochberg(p, 0.05) == oracle).all()


def test_the_rule_decides_as_the_monitors_does() -> None:
    """Effect, Benjamini–Hochberg, persistence over 300 hours of 14 metrics: raised where `rule_on` first says drift."""
    random = np.random.default_rng(5)
    hours, policy = 300, DriftPolicy()
    p, effect = random.beta(0.2, 2, (hours, METRICS)), random.uniform(0.05, 0.2, (hours, METRICS))
    moved = benjamini_hochberg(p, policy.alpha) & (effect >= policy.relative)
    raised = persistent(moved.T, np.ones((METRICS, hours), dtype=bool), limits("latency").hours)
    runs: dict[str, Run] = {}
    for hour in range(hours):
        found = [
            Measurement(f"m{i}", "output", "ms", 99, 99, 1.0, 1.0, effect_name="relative", effect=effect[hour, i],
                        p_value=p[hour, i])
            for i in range(METRICS)
        ]  # fmt: skip
        ruled = rule_on(found, runs, policy)
        runs = {one.measurement.metric: one.run for one in ruled}
        first = [one.verdict == "drift" and one.run.streak == policy.persistence for one in ruled]
        assert first == raised[:, hour].tolist()
    assert raised.sum() > 20


def test_the_others_are_drawn_as_null() -> None:
    """A p of 0.01 alone holds; among thirteen metrics without a move it mostly does not, and 1e-6 does."""
    random, asked = np.random.default_rng(6), np.ones((1, 2000), dtype=bool)
    assert among(random, np.full((1, 2000), 0.01), asked, limits("latency")).mean() < 0.1
    assert among(random, np.full((1, 2000), 1e-6), asked, limits("latency")).all()
    assert among(random, np.full((1, 9), 0.01), asked[:, :9], DriftLimits(0.1, metrics=1)).all()


def test_length_distances_are_the_reports() -> None:
    """PSI and the p of Kolmogorov–Smirnov over one hour's counts are those that the report computes."""
    random = np.random.default_rng(2)
    before = random.multinomial(20_000, np.full(20, 0.05), 1)[:, None, :]
    now = random.multinomial(900, np.linspace(0.9, 1.1, 20) / 20, (1, 5))
    effect, p = length_distances(before, now)
    for hour in range(5):
        one, other = before[0, 0].astype(float), now[0, hour].astype(float)
        assert effect[0, hour] == pytest.approx(distances.psi(one.reshape(10, 2).sum(1), other.reshape(10, 2).sum(1)))
        exact = distances.ks_p(distances.ks(one, other), 20_000, 900)
        assert p[0, hour] == pytest.approx(exact, rel=0.1, abs=1e-3)


def test_mean_distances_are_welchs() -> None:
    """A mean's change and its p are those of Welch's test at these counts; without spread, certain either way."""
    mean, n = np.array([[105.0, 100.0]]), np.full((1, 2), 400.0)
    full = (np.array([[900.0]]), np.array([[100.0]]), np.array([[40_000.0]]))
    effect, p = mean_distances(mean, n, *full, relative=True)
    assert effect.tolist() == [[0.05, 0.0]]
    assert p[0, 0] == pytest.approx(distances.welch(100, 900, 40_000, 105, 900, 400), rel=0.15)
    assert mean_distances(mean, n, np.zeros((1, 1)), *full[1:], relative=False)[1].tolist() == [[0.0, 1.0]]


def test_a_move_must_last_and_empty_hours_do_not_end_it() -> None:
    """Three judged hours in a row raise once; an hour that abstains in between neither counts nor ends the run."""
    moved = np.array([[1, 1, 0, 1, 1, 0, 1, 1]], dtype=bool)
    judged = np.array([[1, 1, 1, 1, 1, 0, 1, 1]], dtype=bool)
    assert persistent(moved, judged, 3).nonzero()[1].tolist() == [6]

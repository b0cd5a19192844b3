"""Simulated windows: measured and judged as the monitor measures and judges, and what that gives in the long run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ratchet.consumers.rules import measuring, shift_simulation
from ratchet.consumers.rules.drift import calmer
from ratchet.consumers.rules.drift_arrays import share_distances
from ratchet.consumers.rules.measurement import Measurement
from ratchet.consumers.rules.shift_simulation import KINDS, Traffic, limits, raised, windows
from ratchet.consumers.rules.simulation import WARM, delay, false_alarms
from ratchet.schemas.drift_policy import DriftPolicy

EVERY = [
    Traffic("lengths", 5000, 0.05, 0.7),
    Traffic("rates", 500, 0.1, 0.7, level=0.05),
    Traffic("means", 500, 0.03, 0.7),
    Traffic("topics", 2000, 0.1, 0.7),
    Traffic("terms", 2000, 0.1, 0.7),
]
METRIC = {kind: metric for metric, kind in KINDS.items()}


def test_share_distances_are_the_reports() -> None:
    """Distance and p of `measuring.shares`, pooled cells and scaled counts included, for every window at once."""
    random = np.random.default_rng(1)
    before = random.multinomial(4000, random.dirichlet(np.ones(30)), (4, 1)).astype(float)
    now = random.multinomial(1500, random.dirichlet(np.full(30, 0.3)), (4, 6)).astype(float)
    distance, p = share_distances(before, now, np.full((4, 1), 900.0), np.full((4, 6), 600.0))
    for series, window in np.ndindex(4, 6):
        found = measuring.shares(
            "answer_terms", "output", [str(n) for n in range(30)], before[series, 0], now[series, window], 900, 600
        )
        assert distance[series, window] == pytest.approx(found.effect, abs=1e-9)
        assert p[series, window] == pytest.approx(found.p_value, abs=1e-9)


@pytest.mark.parametrize("traffic", EVERY, ids=lambda traffic: traffic.kind)
def test_with_both_baselines_what_moved_less_counts(traffic: Traffic) -> None:
    """The same windows beside both baselines are never further off than beside the whole one alone."""
    effect, _ = windows(np.random.default_rng(2), traffic, 3, 48)
    alone, _ = windows(np.random.default_rng(2), traffic, 3, 48, same_hours=False)
    assert (np.abs(effect) <= np.abs(alone) + 1e-12).all()
    # a hundred terms of one hour differ by chance more than any hour differs from all of them
    assert (np.abs(effect) < np.abs(alone) - 1e-12).any() or traffic.kind == "terms"
    one, other = (
        Measurement("m", "output", "", 9, 9, effect_name="psi", effect=value, p_value=0.1) for value in (0.2, 0.1)
    )
    assert calmer(one, other) is other, "as the monitor chooses"


@pytest.mark.parametrize("traffic", EVERY, ids=lambda traffic: traffic.kind)
def test_a_large_change_is_found_and_calm_hours_hardly_ever_raise(traffic: Traffic) -> None:
    """Every kind of metric: a handful of false alarms a year at most, and a large change within a day."""
    random, rule = np.random.default_rng(3), limits(METRIC[traffic.kind])
    calm = raised(random, traffic, rule, *windows(random, traffic, 20, 240))
    assert false_alarms(calm).count <= 2
    change = {"lengths": 0.5, "rates": 0.1, "means": 0.5, "topics": 0.2, "terms": 0.7}[traffic.kind]
    moved = raised(random, traffic, rule, *windows(random, traffic, 20, WARM + 24, change=change))
    assert delay(moved, WARM).found == 1


def test_longer_windows_have_more_to_go_by() -> None:
    """Three hours a window: effects average out, and a series of as many days has a third of the windows."""
    traffic = Traffic("rates", 100, level=0.1)
    hourly, _ = windows(np.random.default_rng(4), traffic, 50, 240)
    threes, _ = windows(np.random.default_rng(4), traffic, 50, 80, width=3)
    assert np.abs(threes).mean() < 0.7 * np.abs(hourly).mean()
    assert false_alarms(np.zeros((50, 80), dtype=bool), 3).days == false_alarms(np.zeros((50, 240), dtype=bool)).days


def test_too_few_observations_raise_nothing() -> None:
    """Below what the statistic needs the rule abstains, whatever the effect."""
    traffic = Traffic("lengths", 400)
    random = np.random.default_rng(5)
    assert not raised(
        random, traffic, limits("answer_length"), *windows(random, traffic, 5, WARM + 24, change=0.9)
    ).any()


def test_a_tasks_own_policy_sets_the_rule() -> None:
    """Its thresholds by kind and by metric, α and persistence; a judge's version is a judge_score."""
    policy = DriftPolicy(psi=0.3, js=0.2, relative=0.4, difference=0.07, alpha=0.01, persistence=5)
    found = {metric: limits(metric, policy).effect for metric in KINDS}
    assert (found["prompt_length"], found["answer_topics"], found["cost"], found["errors"]) == (0.3, 0.2, 0.4, 0.07)
    assert (limits("latency", policy).q, limits("latency", policy).hours) == (0.01, 5)
    own = DriftPolicy(thresholds={"judge_score": 0.15})
    assert limits("judge_score:gpt:rubric#1", own).effect == 0.15


def test_the_default_for_lengths_finds_a_fifth_within_a_day() -> None:
    """PSI 0.05: +20% within a median of a day at 500 and 5,000 answers an hour; 0.1 would take days."""
    for n in (500, 5000):
        traffic, random = Traffic("lengths", n, 0.05, 0.7), np.random.default_rng(6)
        measured = windows(random, traffic, 40, WARM + 240, change=0.2)
        took = {
            psi: delay(raised(random, traffic, replace(limits("answer_length"), effect=psi), *measured), WARM).median
            for psi in (DriftPolicy().psi, 0.1)
        }
        assert took[DriftPolicy().psi] is not None
        assert took[DriftPolicy().psi] < 24
        assert took[0.1] is None or took[0.1] > 30


def test_every_metric_of_a_report_is_simulated() -> None:
    """No alert is left without its figure: each kind has a draw and a comparison."""
    assert set(KINDS.values()) == set(shift_simulation._DRAWS) == set(shift_simulation._COMPARE)

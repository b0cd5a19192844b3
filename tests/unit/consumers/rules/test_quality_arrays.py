"""The rules in numpy decide as the rules hour by hour do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.consumers.rules import quality, quality_arrays, rates
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality_baseline import estimate
from ratchet.consumers.rules.simulation import Noise, counts, scores

START = datetime(2026, 11, 2, tzinfo=UTC)
LONG = START + timedelta(days=999)
BASELINE, SERIES = 200, 30


def hourly(mean: np.ndarray, n: np.ndarray, variance: float, begin: int) -> list[HourValue]:
    """One series as hours."""
    return [
        HourValue(START + timedelta(hours=begin + i), float(n[i]), float(mean[i]), variance) for i in range(len(mean))
    ]


def with_gaps(random: np.random.Generator, mean: np.ndarray, n: float) -> tuple[np.ndarray, np.ndarray]:
    """Hours of which some are NaN, empty or too small."""
    ns = np.where(random.random(mean.shape) < 0.15, 5.0, n * random.uniform(0.5, 2, mean.shape))
    return np.where(random.random(mean.shape) < 0.05, np.nan, mean), ns


def raised(update, state, hours, thresholds) -> list[bool]:
    """Where a rule is raised: of a page only the hour in which it begins."""
    verdicts = quality.fold(update, state, hours, thresholds, LONG)[1]
    return [v.outcome == "alarm" and (update is not quality.page or v.statistic == v.limit) for v in verdicts]


def same(one: quality.Baseline, all_of: quality_arrays.Baselines, row: int) -> None:
    """A series' baseline is the row of the many."""
    many = all_of.each()[row]
    assert many.hours == one.hours
    for name in ("mean", "variance", "between", "phi", "n"):
        assert getattr(many, name) == pytest.approx(getattr(one, name), rel=1e-9, abs=1e-15), name


@pytest.mark.parametrize("noise", [Noise(60), Noise(200, 0.03, 0.7), Noise(2000, 0.03, 0.9)])
def test_quality_rules_decide_the_same(noise: Noise) -> None:
    """Baselines, page, CUSUM and e-detector: the same figures and the same hours raised, gaps and NaN included."""
    random = np.random.default_rng(int(noise.n))
    mean, n = with_gaps(random, scores(random, noise, SERIES, BASELINE + 200), noise.n)
    mean[:, BASELINE + 50 :] -= 0.06
    variance = noise.cv**2
    thresholds = quality.Thresholds(mean_hours=500)
    before, live = slice(None, BASELINE), slice(BASELINE, None)
    base = quality_arrays.estimate(mean[:, before], n[:, before], np.full(SERIES, variance), thresholds.min_n)
    made = {
        rule: rule_of(mean[:, live], n[:, live], base, thresholds)
        for rule, rule_of in (
            (quality.page, quality_arrays.page),
            (quality.cusum, quality_arrays.cusum),
            (quality.detector, quality_arrays.detector),
        )
    }
    states = {quality.page: quality.Page, quality.cusum: quality.Cusum, quality.detector: quality.Detector}
    for row in range(SERIES):
        same(estimate(hourly(mean[row, before], n[row, before], variance, 0), min_n=20), base, row)
        hours = hourly(mean[row, live], n[row, live], variance, BASELINE)
        for rule, found in made.items():
            state = states[rule](base.each()[row])
            assert raised(rule, state, hours, thresholds) == found[row].tolist(), (rule.__name__, row)
    assert all(found.any() for found in made.values())


def test_bernoulli_decides_the_same() -> None:
    """Refusal rates with gaps: the same hours raised."""
    random = np.random.default_rng(4)
    noise = Noise(100, 0.3, 0.5)
    mean, n = with_gaps(random, counts(random, 0.03, noise, SERIES, 250, np.repeat([0, 0.04], [150, 100])), 100)
    base = quality_arrays.known(0.03, 0.0291, 0.00008, 0.5, 100, SERIES)
    thresholds = rates.RateThresholds(mean_hours=500)
    found = quality_arrays.bernoulli(mean, n, base, thresholds)
    for row in range(SERIES):
        state = rates.Rate(base.each()[row])
        assert raised(rates.bernoulli, state, hourly(mean[row], n[row], 0.0291, 0), thresholds) == found[row].tolist()
    assert found.any()


def test_a_series_without_hours_is_refused() -> None:
    """A baseline of NaN names what is allowed."""
    nothing = np.full((2, 30), np.nan)
    with pytest.raises(ValueError, match=r"0 judged hours in a series; allowed: 3 or more"):
        quality_arrays.estimate(nothing, np.full((2, 30), 50.0), np.ones(2))

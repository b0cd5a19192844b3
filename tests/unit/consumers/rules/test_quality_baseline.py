"""What quality is compared with: estimators held to statsmodels and to what was put in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.meta_analysis import combine_effects

from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality_baseline import dersimonian_laird, estimate, mean_correlation
from ratchet.consumers.rules.simulation import effects

START = datetime(2026, 11, 2, tzinfo=UTC)


def hours(means, ns=None, variance: float = 0.04) -> list[HourValue]:
    """Consecutive hours."""
    ns = [100.0] * len(means) if ns is None else ns
    return [
        HourValue(START + timedelta(hours=i), float(n), float(m), variance)
        for i, (m, n) in enumerate(zip(means, ns, strict=True))
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # statsmodels, of hours without any spread
@settings(deadline=None)
@given(
    means=st.lists(st.floats(0.5, 0.9), min_size=3, max_size=30),
    ns=st.lists(st.integers(20, 5000), min_size=30, max_size=30),
)
def test_between_hours_is_dersimonian_laird(means: list[float], ns: list[int]) -> None:
    """τ² is statsmodels' DerSimonian–Laird estimate on the same hours."""
    mine = dersimonian_laird(means, ns[: len(means)], 0.04)
    oracle = combine_effects(np.array(means), 0.04 / np.array(ns[: len(means)]), method_re="chi2")
    assert mine == pytest.approx(max(0.0, oracle.tau2), rel=1e-6, abs=1e-12)


def test_what_was_put_in_comes_out() -> None:
    """Over 60 baselines of two weeks less an hour: mean, τ and φ come out at what made them, se at its true size."""
    random = np.random.default_rng(1)
    found = [
        estimate(hours(0.8 + 0.03 * one + random.normal(0, sqrt(0.04 / 100), 335)), min_n=20)
        for one in effects(random, 60, 335, 0.7)
    ]
    assert np.mean([one.between for one in found]) == pytest.approx(0.0009, rel=0.08)
    assert np.mean([one.phi for one in found]) == pytest.approx(0.7, abs=0.03)
    means = [one.mean for one in found]
    assert np.mean(means) == pytest.approx(0.8, abs=0.002)
    assert np.std(means) == pytest.approx(np.mean([one.se for one in found]), rel=0.25)
    assert not any(one.of_week for one in found)


def test_mean_correlation_is_the_double_sum() -> None:
    """The closed form is (1/k²)·ΣΣφ^|i−j|."""
    whole = 0.7 ** np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    assert mean_correlation(0.7, 50) == pytest.approx(whole.mean())


def test_hours_of_the_week_are_learned_after_two_weeks_and_only_where_there_is_a_pattern() -> None:
    """A daily wave becomes offsets instead of variance between hours; without a pattern they are shrunk away."""
    random = np.random.default_rng(2)
    clock = np.arange(504)
    wave = 0.05 * np.sin(2 * np.pi * clock / 24)
    noise = random.normal(0, sqrt(0.04 / 100), 504)
    known = estimate(hours(0.8 + wave + noise), min_n=20)
    assert known.expected(START + timedelta(hours=6)) == pytest.approx(0.85, abs=0.02)
    assert known.between < 0.0002
    flat = estimate(hours(0.8 + noise), min_n=20)
    assert max(map(abs, flat.of_week), default=0.0) < 0.02
    assert estimate(hours((0.8 + wave + noise)[:335]), min_n=20).of_week == ()


def test_bad_hours_are_left_out_and_too_few_abstain() -> None:
    """NaN, small and repeated hours do not count; a day is the least; below 0 a relative drop has no meaning."""
    good = hours([0.8] * 30)
    bad = [
        HourValue(START + timedelta(hours=40), 100, nan, 0.04),
        HourValue(START + timedelta(hours=41), 3, 0.1, 0.04),
    ]
    assert estimate([*good, *bad, good[3]], min_n=20) == estimate(good, min_n=20)
    assert estimate(good[:10], min_n=20).abstains == "10 judged hours, fewer than 24"
    assert estimate([], min_n=20).abstains == "0 judged hours, fewer than 24"
    assert estimate(hours([-0.1] * 30), min_n=20).abstains == "a mean of -0.1 is not above 0"
    alike = estimate(hours([1.0] * 30, variance=0.0), min_n=20)
    assert (alike.abstains, alike.mean, alike.between) == (None, 1.0, 0.0)

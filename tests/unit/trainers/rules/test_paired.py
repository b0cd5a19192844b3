"""Paired differences against their definitions, statsmodels and scipy."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from statsmodels.stats.contingency_tables import mcnemar

from ratchet.trainers.rules import paired

counts = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60)).filter(lambda one: sum(one) > 0)


def test_the_score_statistic_is_mcnemars_at_no_difference() -> None:
    """Against "equally often right" Tango's statistic squared is McNemar's chi-squared, as statsmodels has it."""
    z = paired.score(15, 6, 50, 0.0)
    table = [[20, 15], [6, 9]]
    assert z**2 == pytest.approx(mcnemar(table, exact=False, correction=False).statistic)
    assert z == pytest.approx((15 - 6) / sqrt(15 + 6))


@pytest.mark.parametrize(("won", "lost", "n", "gap"), [(15, 6, 50, -0.1), (2, 9, 80, -0.05), (7, 7, 30, 0.2)])
def test_the_variance_is_that_of_the_likeliest_rates(won: int, lost: int, n: int, gap: float) -> None:
    """The variance is that of the rates that are likeliest under the hypothesis, found here by search."""

    def unlikely(q: float) -> float:
        return -(won * log(q + gap) + lost * log(q) + (n - won - lost) * log(1 - 2 * q - gap))

    q = optimize.minimize_scalar(unlikely, bounds=(max(0, -gap) + 1e-9, (1 - gap) / 2 - 1e-9), method="bounded").x
    expected = (won - lost - n * gap) / sqrt(n * (2 * q + gap - gap**2))
    assert paired.score(won, lost, n, gap) == pytest.approx(expected, rel=1e-4)


@given(counts)
def test_the_interval_holds_the_observed_difference_and_nothing_outside_it(some: tuple[int, int, int]) -> None:
    """The interval is within -1 to 1, contains the observed difference, and its ends are where the test turns."""
    won, lost, same = some
    n = won + lost + same
    low, high = paired.rates(won, lost, n, 1.645)
    assert -1 <= low <= (won - lost) / n <= high <= 1
    if low > -1:
        assert paired.score(won, lost, n, low) == pytest.approx(1.645, abs=1e-3)


@given(counts)
def test_exchanging_the_models_mirrors_the_interval(some: tuple[int, int, int]) -> None:
    """What one model wins the other loses."""
    won, lost, same = some
    n = won + lost + same
    low, high = paired.rates(won, lost, n, 1.96)
    assert paired.rates(lost, won, n, 1.96) == pytest.approx((-high, -low), abs=1e-9)


def test_agreement_everywhere_still_leaves_doubt() -> None:
    """Two models that agree on all of n prompts may differ by z²/(n + z²)."""
    low, high = paired.rates(0, 0, 20, 2.0)
    assert (low, high) == (pytest.approx(-4 / 24), pytest.approx(4 / 24))


@pytest.mark.parametrize("some", [(1, 1, 1), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(some: tuple[int, int, int]) -> None:
    """More contests than prompts, or none at all, raise with what is allowed."""
    with pytest.raises(ValueError, match="allowed"):
        paired.rates(*some, 1.96)


def test_the_bootstrap_draws_the_same_prompts_for_both() -> None:
    """A model that is better by 1 on every prompt is better by 1 in every resample; a seed gives the same draws."""
    rows = np.random.default_rng(0).normal(size=(30, 1))
    mean = lambda some: float(some.mean())  # noqa: E731
    found = paired.resampled(rows + 1, rows, mean, seed=3, rounds=50)
    assert [one - two for one, two in found] == pytest.approx([1.0] * 50)
    assert found == paired.resampled(rows + 1, rows, mean, seed=3, rounds=50)
    assert found != paired.resampled(rows + 1, rows, mean, seed=4, rounds=50)


def test_the_bootstraps_spread_is_the_standard_error() -> None:
    """The means of resamples spread as the mean's standard error says."""
    rows = np.random.default_rng(1).normal(size=(80, 1))
    found = [one for one, _ in paired.resampled(rows, None, lambda some: float(some.mean()), seed=0)]
    assert np.std(found) == pytest.approx(float(rows.std()) / sqrt(80), rel=0.1)

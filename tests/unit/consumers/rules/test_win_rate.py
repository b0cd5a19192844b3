from __future__ import annotations

import math
import random

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.consumers.rules.win_rate import Comparison, by_length, length_controlled, tally, win_rate

comparisons = st.lists(
    st.builds(
        Comparison,
        score=st.sampled_from([0.0, 0.5, 1.0]),
        difference=st.integers(-2_000, 2_000).map(float),
        weight=st.sampled_from([1.0, 2.0, 10.0]),
        count=st.integers(1, 5),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(comparisons)
def test_exchanging_the_sides_mirrors_both_rates(found: list[Comparison]) -> None:
    """Seen from the other side, rate and interval are one minus themselves, plain and length-controlled."""
    mirrored = [Comparison(1 - one.score, -one.difference, one.weight, one.count) for one in found]
    plain, other = win_rate(found), win_rate(mirrored)
    assert plain.rate is not None
    assert other.rate is not None
    assert plain.rate == pytest.approx(1 - other.rate)
    assert plain.low == pytest.approx(1 - other.high)
    here, there = length_controlled(found), length_controlled(mirrored)
    assert here
    assert there
    assert here.rate is not None
    assert there.rate is not None
    assert here.rate == pytest.approx(1 - there.rate, abs=1e-6)
    assert here.low == pytest.approx(1 - there.high, abs=1e-6)
    assert here.slope == pytest.approx(there.slope, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(comparisons, st.sampled_from([0.001, 0.25, 1_000.0]))
def test_rates_are_rates_whatever_the_unit_of_length(found: list[Comparison], factor: float) -> None:
    """Rates lie in their intervals within 0 and 1, however one-sided; unit, order and repeats change nothing."""
    scaled = [Comparison(one.score, one.difference * factor, one.weight, one.count) for one in reversed(found)]
    single = [Comparison(one.score, one.difference, one.weight) for one in found for _ in range(one.count)]
    first = length_controlled(found)
    assert first
    assert first.rate is not None
    assert 0 <= first.low <= first.rate <= first.high <= 1
    for again in (length_controlled(scaled), length_controlled(single)):
        assert again
        assert (again.rate, again.low, again.n) == pytest.approx((first.rate, first.low, first.n), abs=1e-6)
    plain = win_rate(found)
    assert plain.rate is not None
    assert 0 <= plain.low <= plain.rate <= plain.high <= 1
    assert sum(sum((one.wins, one.ties, one.losses)) for one in by_length(found)) == sum(tally(found))


def test_without_differences_it_is_the_plain_rate_drawn_by_one_tie() -> None:
    """Equal lengths leave nothing to control: (wins + ½) of (n + 1)."""
    found = [Comparison(1.0, 0.0, count=7), Comparison(0.0, 0.0, count=3)]
    controlled = length_controlled(found)
    assert controlled
    assert controlled.rate == pytest.approx(7.5 / 11)
    assert not controlled.extrapolated


def test_the_fit_is_the_generalized_linear_model() -> None:
    """θ and φ are those of statsmodels' binomial GLM on the same rows, weights and half observations."""
    rng = random.Random(5)
    found = [Comparison(rng.choice([0.0, 0.5, 1.0]), rng.gauss(120, 300), rng.choice([1.0, 4.0])) for _ in range(60)]
    total = sum(one.weight for one in found)
    scale = math.sqrt(sum(one.weight * one.difference**2 for one in found) / total)
    x = [math.tanh(one.difference / scale) for one in found] + [-1.0, 1.0]
    y = [one.score for one in found] + [0.5, 0.5]
    weights = [one.weight * len(found) / total for one in found] + [0.5, 0.5]
    model = sm.GLM(np.array(y), sm.add_constant(np.array(x)), family=sm.families.Binomial(), freq_weights=weights)
    theta, slope = model.fit(tol=1e-12).params
    controlled = length_controlled(found)
    assert controlled
    assert controlled.rate == pytest.approx(1 / (1 + math.exp(-theta)), abs=1e-6)
    assert controlled.slope == pytest.approx(slope, abs=1e-6)


def test_a_judge_that_likes_length_is_seen_through() -> None:
    """Equal answers, the candidate's longer on average: the plain rate says better, the controlled rate says equal."""
    rng = random.Random(11)
    found = []
    for _ in range(600):
        difference = rng.gauss(80, 100)
        liked = 1 / (1 + math.exp(-1.5 * math.tanh(difference / 128)))
        found.append(Comparison(float(rng.random() < liked), difference))
    plain, controlled = win_rate(found), length_controlled(found)
    assert controlled
    assert controlled.rate is not None
    assert plain.low > 0.5
    assert controlled.low < 0.5 < controlled.high
    assert abs(controlled.rate - 0.5) < 0.05
    assert controlled.slope > 1
    longer, _, shorter = by_length(found)
    assert longer.win_rate.low > 0.5 > shorter.win_rate.high


def test_nothing_compared_says_nothing() -> None:
    """Without comparisons there is no rate and the interval is everything; one side only is extrapolation."""
    nothing = win_rate([])
    assert (nothing.n, nothing.rate, nothing.low, nothing.high) == (0.0, None, 0.0, 1.0)
    assert length_controlled([]) is None
    always_longer = length_controlled([Comparison(1.0, 50.0, count=3), Comparison(0.0, 80.0)])
    assert always_longer
    assert always_longer.extrapolated

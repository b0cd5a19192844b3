"""Weights of pairs, applied by how often each is drawn."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.trainers.rules.resampling import systematic

starts = st.floats(0.001, 1.0)


@given(st.integers(1, 300), st.floats(0.01, 100), starts)
def test_equal_weights_draw_everything_once(n: int, weight: float, start: float) -> None:
    """Without weights nothing changes."""
    assert systematic([weight] * n, start) == list(range(n))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=100).filter(lambda w: sum(w) > 0.1), starts)
def test_each_comes_about_as_often_as_its_weight_says(weights: list[float], start: float) -> None:
    """As many are drawn as there are, each floor or ceil of its expected number of times."""
    drawn = systematic(weights, start)
    assert len(drawn) == len(weights)
    counts = Counter(drawn)
    for index, weight in enumerate(weights):
        expected = weight * len(weights) / sum(weights)
        assert math.floor(expected - 1e-6) <= counts[index] <= math.ceil(expected + 1e-6)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0], [math.nan], [math.inf]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    """Negative, infinite, absent or all-zero weights."""
    with pytest.raises(ValueError, match="weight"):
        systematic(weights)


def test_a_comb_that_begins_outside_the_first_gap_is_refused() -> None:
    """The start is a share of one gap."""
    with pytest.raises(ValueError, match="start"):
        systematic([1.0], 0.0)

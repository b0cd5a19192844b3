"""Early stopping's rule, and when held-out rows are measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.trainers.rules.stopping import Standing, evaluation_steps, standing

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("values", "lower", "delta", "expected"),
    [
        ([3.0, 2.0, 2.5, 2.4], True, 0.0, Standing(1, 2)),
        ([0.5, 0.75, 0.75, 0.7], False, 0.0, Standing(1, 2)),  # a tie stays with the earlier
        ([3.0, 2.95, 2.9, 2.85], True, 0.1, Standing(3, 0)),  # small steps add up, from the best
        ([3.0, 2.95, 2.92], True, 0.1, Standing(0, 2)),
    ],
)
def test_where_a_run_stands(values: list[float], lower: bool, delta: float, expected: Standing) -> None:
    """The best value by more than the smallest difference, and how many came after it."""
    assert standing(values, lower_is_better=lower, min_delta=delta) == expected


def test_nothing_measured_stands_nowhere() -> None:
    """There is no best of nothing."""
    assert standing([], lower_is_better=True, min_delta=0.0) is None


@given(VALUES, st.booleans(), st.floats(0, 10))
def test_the_best_is_nearly_the_best_of_all(values: list[float], lower: bool, delta: float) -> None:
    """No value is better than the best by more than the smallest difference, and without one it is the first best."""
    found = standing(values, lower_is_better=lower, min_delta=delta)
    assert found is not None
    assert found.best + found.since == len(values) - 1
    extreme = min(values) if lower else max(values)
    assert abs(values[found.best] - extreme) <= delta
    if delta == 0:
        assert found.best == values.index(extreme)


@given(VALUES, st.booleans())
def test_higher_and_lower_mirror_each_other(values: list[float], lower: bool) -> None:
    """A loss and its negative stand alike."""
    mirrored = [-value for value in values]
    assert standing(values, lower_is_better=lower, min_delta=0.5) == standing(
        mirrored, lower_is_better=not lower, min_delta=0.5
    )


@given(st.integers(1, 5_000), st.integers(1, 1_000))
def test_evaluations_are_even_and_end_with_the_run(steps: int, evaluations: int) -> None:
    """As many as asked for, or one a step; the last step among them; gaps that differ by one at most."""
    when = sorted(evaluation_steps(steps, evaluations))
    assert len(when) == min(steps, evaluations)
    assert when[-1] == steps
    gaps = [late - early for early, late in zip([0, *when], when, strict=False)]
    assert max(gaps) - min(gaps) <= 1
    assert evaluation_steps(steps, 0) == frozenset()

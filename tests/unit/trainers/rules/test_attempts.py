"""Starts are counted so that a job which gets on is never given up, and one which does not is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratchet.trainers.rules.attempts import Attempts, begin


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_the_count_is_of_starts_since_the_last_one_that_got_further(steps: list[int]) -> None:
    """Whatever the checkpoints were, the count is the starts from the newest high mark on, itself included."""
    attempts = Attempts()
    for step in steps:
        attempts = begin(attempts, step)
    best = max(0, *steps)
    marks = [index for index, step in enumerate(steps) if step > max([0, *steps[:index]])]
    since = marks[-1] if marks else 0
    assert attempts == Attempts(len(steps) - since, best)


@given(st.integers(1, 20), st.integers(0, 1000))
def test_starts_that_get_nowhere_are_all_counted(n: int, step: int) -> None:
    """A job that dies at the same checkpoint n times has been started n times."""
    attempts = Attempts()
    for _ in range(n):
        attempts = begin(attempts, step)
    assert attempts.n == n

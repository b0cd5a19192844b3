"""What is said of rewards, and of a run in which there was nothing to learn from them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratchet.consumers.check_set import CheckSet
from ratchet.schemas.checks import LatencyCheck, RegexCheck
from ratchet.schemas.errors import TrainingError
from ratchet.trainers.training.grpo import _check, _mean, _rate, refuse_without_difference


@given(st.lists(st.floats(0, 1)))
@example([0.0, 0.0, 0.0, 0.0, 3.4e-146])
def test_a_rate_lies_in_its_interval(scores: list[float]) -> None:
    """However graded the scores are; without one there is no rate."""
    said = _rate(scores)
    assert said["n"] == len(scores)
    assert (said["rate"] is None) == (not scores)
    if scores:
        assert 0 <= said["low"] <= said["rate"] <= said["high"] + 1e-9


def test_a_mean_says_how_sure_it_is() -> None:
    """The standard error is that of the mean; one answer has none, no answer no mean."""
    assert _mean([1.0, 3.0]) == {"n": 2, "mean": 2.0, "standard_error": pytest.approx(1.0)}
    assert _mean([1.0]) == {"n": 1, "mean": 1.0, "standard_error": None}
    assert _mean([])["mean"] is None


def test_a_check_that_cannot_say_gives_no_reward() -> None:
    """Passed is 1 and failed 0; an answer that it has no word on gets none, never 0."""
    prompts = [[{"role": "user", "content": "q"}]] * 2
    with CheckSet({"t": [RegexCheck(name="yes", kind="regex", pattern="yes")]}) as checks:
        assert _check(checks, "t")(prompts, ["yes", "no"], [[1], [2]]) == [1.0, 0.0]
    with CheckSet({"t": [LatencyCheck(name="fast", kind="latency", max_ms=5)]}) as checks:
        assert _check(checks, "t")(prompts, ["yes", "no"], [[1], [2]]) == [None, None]


def test_a_run_without_any_difference_is_refused() -> None:
    """One step in which some answers differed is enough to have learned; runs of other methods have no such figure."""
    same = {"step": 1.0, "reward": 0.0, "reward_same": 1.0}
    with pytest.raises(TrainingError, match="in none of 2 steps"):
        refuse_without_difference([same, same])
    refuse_without_difference([same, same | {"reward_same": 0.75}])
    refuse_without_difference([{"step": 1.0, "loss": 2.0}])

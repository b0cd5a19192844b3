"""What samples, judges and criteria say together, and how sure it is."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.judging import Judgement
from ratchet.consumers.rules.verdicts import Grade, cascade, confidence, from_samples, overall, panel, spread

shares = st.lists(st.floats(0.01, 1), min_size=5, max_size=5)
scores = st.floats(0, 1)


def grade(judge: str, score: float | None, rubric: str = "r.v1", **more: object) -> Grade:
    """A judge's grade, or its abstention."""
    judgement = None if score is None else Judgement(score, None, "")
    return Grade(judge, rubric, judgement, "" if judgement else "away", **more)  # type: ignore[arg-type]


@given(shares)
def test_spread_is_the_standard_deviation_on_the_scale_of_scores(weights: list[float]) -> None:
    """It is at most 0.5 (half 1, half 5), 0 when sure, and agrees with the moments of the distribution."""
    total = sum(weights)
    distribution = {str(number + 1): weight / total for number, weight in enumerate(weights)}
    mean = sum((int(one) - 1) / 4 * share for one, share in distribution.items())
    variance = sum(((int(one) - 1) / 4 - mean) ** 2 * share for one, share in distribution.items())
    found = spread(distribution)
    assert found is not None
    assert found <= 0.5
    assert math.isclose(found, math.sqrt(variance), abs_tol=1e-9)


def test_confidence() -> None:
    """1 when all of it lies on one grade, 0 at the widest, and 0 where nothing is known of it."""
    assert spread({"4": 1.0}) == 0.0
    assert spread({"1": 0.5, "5": 0.5}) == 0.5
    assert [confidence(grade("j", 0.5, spread=one)) for one in (0.0, 0.25, 0.5, None)] == [1.0, 0.5, 0.0, 0.0]
    assert confidence(grade("j", None)) == 0.0


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_samples_average(grades: list[int]) -> None:
    """The mean of the replies, with their shares as the distribution, whose expectation is that mean."""
    found = from_samples([str(one) for one in grades])
    assert found is not None
    assert found.distribution is not None
    assert math.isclose(found.score, fmean((one - 1) / 4 for one in grades), abs_tol=1e-12)
    assert math.isclose(sum(found.distribution.values()), 1)
    expected = sum((int(one) - 1) / 4 * share for one, share in found.distribution.items())
    assert math.isclose(found.score, expected, abs_tol=1e-12)


def test_too_few_samples_with_a_score_are_none() -> None:
    """Half of the replies must have a score; none of them counts as 0."""
    assert from_samples(["5", "prose"]) == Judgement(1.0, {"1": 0, "2": 0, "3": 0, "4": 0, "5": 1.0}, "")
    assert from_samples(["5", "prose", "11"]) is None
    assert from_samples(["prose"]) is None
    assert from_samples([]) is None


@given(st.lists(scores, min_size=2, max_size=6))
def test_a_panel_is_the_mean_with_its_spread(given_scores: list[float]) -> None:
    """The panel's score is the mean of its judges', its spread their standard deviation; it costs nothing itself."""
    grades = [grade(f"j{number}", score) for number, score in enumerate(given_scores)]
    word = panel(list(reversed(grades)), None)
    assert word.judge == "panel:" + "+".join(sorted(one.judge for one in grades))
    assert word.judgement is not None
    assert word.spread is not None
    assert math.isclose(word.judgement.score, fmean(given_scores), abs_tol=1e-12)
    assert math.isclose(word.spread, stdev(given_scores), abs_tol=1e-9)
    assert (word.basis, word.cost_usd, word.prompt_tokens) == ("combined", 0.0, 0)


def test_a_panel_without_its_quorum_has_no_word() -> None:
    """One that abstains silences the panel, unless the quorum says how many are enough; one judge is no panel."""
    grades = [grade("a", 1.0), grade("b", 0.5), grade("c", None)]
    silent = panel(grades, None)
    assert silent.judgement is None
    assert silent.why == "c abstained (away)"
    two = panel(grades, 2)
    assert two.judgement is not None
    assert two.judgement.score == 0.75
    assert "c abstained" in two.judgement.rationale
    assert panel([grade("a", 1.0), grade("b", None)], 2).judgement is None


def test_a_cascade_has_the_last_word_that_was_said() -> None:
    """The larger judge's word stands over the small one's; where it abstains the small one's is what there is."""
    small, large, silent = grade("s", 0.2, spread=0.4), grade("l", 0.9, spread=0.1), grade("l", None)
    for asked, score in (([small], 0.2), ([small, large], 0.9), ([small, silent], 0.2)):
        word = cascade(["s", "l"], asked)
        assert word.judge == "cascade:s>l"
        assert word.judgement is not None
        assert word.judgement.score == score
    assert cascade(["s", "l"], [silent, silent]).why == "away"


def test_the_mean_of_criteria_needs_all_of_them() -> None:
    """Over criteria the mean; a criterion that nobody graded leaves no mean, with its reason."""
    both = [grade("j", 1.0, "r.v1/a"), grade("j", 0.5, "r.v1/b")]
    word = overall(both, "r.v1")
    assert word.judgement is not None
    assert (word.rubric, word.judgement.score) == ("r.v1", 0.75)
    assert overall([both[0], grade("j", None, "r.v1/b")], "r.v1").why == "r.v1/b: away"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_distribution_may_leave_grades_out(share: float) -> None:
    """Grades without a share count 0."""
    assert spread({"2": 1.0, "5": 0.0 * share}) == 0.0

"""Whether a judge may gate and page: every reason against it has its words."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.standing import Calibration, Labelled, calibrate, expiry, standing, tally
from ratchet.schemas.judging import JudgePolicy

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICY = JudgePolicy()


def of(*cells: tuple[float, float, int], expired: int = 0, expires_at: datetime | None = None) -> Calibration:
    """A calibration of ``(label, score, times)``."""
    items = [Labelled(label, score) for label, score, times in cells for _ in range(times)]
    return calibrate("t", "j", "r", "0" * 16, tally(items), expired=expired, expires_at=expires_at)


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (None, "no human label of an answer that it scored (n = 0 of 50)"),
        (of(), "no human label"),
        (of((1, 1, 30), (0, 0, 19)), "49 of 50 labels"),
        (of((1, 1, 5), (0, 0, 5), expired=80), "10 of 50 labels, 80 more have expired"),
        (of((1, 1, 60)), "its 60 labels have no bad answer"),
        (of((0, 0.2, 60)), "its 60 labels have no good answer"),
        (of((1, 1, 95), (0, 1, 5)), "not shown to be better than chance: κ 0.00"),
        (of((1, 1, 38), (0, 0, 37), (0, 1, 25)), "not shown to be above the floor of 70%"),
        (of((1, 1, 40), (0, 0, 40), expires_at=NOW), "its calibration expired on 2026-11-01"),
    ],
)
def test_an_advisory_judge_says_why(calibration: Calibration | None, reason: str) -> None:
    """No labels, too few, expired, one class, chance, or under the floor: advisory, with the figures."""
    found = standing(calibration, POLICY, NOW)
    assert not found.trusted
    assert reason in found.reason


def test_a_trusted_judge_has_its_figures() -> None:
    """With enough labels of both classes and agreement above the floor: trusted, until its labels expire."""
    calibration = of((1, 1, 40), (0, 0, 40), (0, 1, 4), expires_at=NOW + timedelta(days=9))
    found = standing(calibration, POLICY, NOW)
    assert str(found) == "trusted: agreement 95% [88%, 98%], n = 84, until 2026-11-10"
    assert not standing(calibration, POLICY, NOW + timedelta(days=9)).trusted
    assert "agreement 95%" in str(calibration)
    assert "n = 84 labels" in str(calibration)


values = st.sampled_from([0.0, 0.2, 0.25, 0.49, 0.5, 0.51, 0.75, 1.0])


@given(st.lists(st.tuples(values, values, st.floats(0.5, 20)), max_size=60))
def test_every_label_is_counted_once(items: list[tuple[float, float, float]]) -> None:
    """Labels split into four cells and the undecided; the sums have every one of them."""
    found = calibrate("t", "j", "r", "0" * 16, tally(Labelled(*item) for item in items))
    cells = (found.both_good, found.judge_only_good, found.people_only_good, found.both_bad)
    assert sum(cells) == found.n
    assert found.n + found.undecided == len(items) == found.labelled.n
    assert found.hits.n == found.both_good + found.people_only_good
    assert found.rejections.n == found.both_bad + found.judge_only_good
    assert (found.sensitivity is None) == (found.hits.n == 0)
    assert (found.agreement is None) == (found.n == 0)


def test_an_ordinal_scale_has_a_weighted_kappa() -> None:
    """Labels of more than two grades give κ by squared distances too; two grades do not."""
    assert of((1, 1, 9), (0.5, 0.75, 9), (0, 0.25, 9)).weighted_kappa is not None
    assert of((1, 1, 9), (0, 0.25, 9)).weighted_kappa is None


@pytest.mark.parametrize("item", [Labelled(math.nan, 1), Labelled(1, math.nan), Labelled(1.5, 1), Labelled(1, -0.1)])
def test_labels_and_scores_are_shares(item: Labelled) -> None:
    """NaN and what lies outside 0–1 is refused, named."""
    with pytest.raises(ValueError, match="allowed: 0 to 1"):
        tally([item])


def test_a_calibration_expires_with_the_label_that_makes_it_too_few() -> None:
    """Of three labels where two are needed, the second newest decides; fewer never had a date."""
    days = [NOW - timedelta(days=day) for day in (3, 1, 2)]
    assert expiry(days, 2, timedelta(days=90)) == NOW + timedelta(days=88)
    assert expiry(days[:1], 2, timedelta(days=90)) is None

"""Frozen answers: when a judge has moved, and what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.consumers.rules.anchors import Anchor, Instrument, alert, compare, set_hash
from ratchet.schemas.calibration_policy import CalibrationPolicy

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICY = CalibrationPolicy()
OF = Instrument("support", "j", "helpful.v1", "0" * 16)


def scores(values: list[float]) -> dict[str, float]:
    """By the anchor's name."""
    return {str(number): value for number, value in enumerate(values)}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=20, max_size=80))
def test_the_test_is_scipys(pairs: list[tuple[float, float]]) -> None:
    """Mean change, interval and p-value are scipy's paired t test; the verdict takes effect and significance."""
    then, now = (list(column) for column in zip(*pairs, strict=True))
    found = compare(scores(then), scores(now), POLICY)
    assert found.change is not None
    assert found.p_value is not None
    assert found.change == pytest.approx(np.mean(now) - np.mean(then), abs=1e-9)
    if np.std(np.array(now) - np.array(then)) > 1e-6:
        expected = stats.ttest_rel(now, then)
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-6)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-6)
    assert (found.verdict == "drifted") == (abs(found.change) >= 0.03 and found.p_value < 0.001)
    assert found.verdict != "steady" or abs(found.change) < 0.015


def test_an_effect_alone_or_a_significance_alone_is_no_drift() -> None:
    """A tiny shift of every anchor is significant and small; a large one of three anchors is neither."""
    same = [0.5] * 60
    tiny = compare(scores(same), scores([0.51] * 60), POLICY)
    assert (tiny.p_value, tiny.verdict) == (0.0, "steady")
    few = compare(scores(same), scores([0.5] * 57 + [1.0, 1.0, 0.9]), POLICY)
    assert few.verdict == "between"
    assert compare(scores(same), scores([0.6] * 60), POLICY).verdict == "drifted"
    assert compare(scores(same), scores(same), POLICY).verdict == "steady"


def test_missing_scores_are_no_good_news() -> None:
    """Anchors on which the judge abstained do not count, and below the least number nothing is said."""
    then = scores([0.5] * 60)
    some = {id: 0.5 for id in list(then)[:19]}
    found = compare(then, some, POLICY)
    assert (found.verdict, found.n, found.change) == ("too few", 19, None)
    assert alert(OF, found, POLICY, NOW, "open") is None
    assert compare({}, {}, POLICY).n == 0


def test_a_steady_judge_seldom_raises_an_alarm_and_a_moved_one_does() -> None:
    """Over 2,000 seeded days of a judge whose grades waver, at most 0.1% alarms plus luck; a 0.08 shift is found."""
    rng = np.random.default_rng(3)
    grades = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    alarms = found = 0
    for _ in range(2_000):
        then = rng.choice(grades, 50)
        waver = rng.choice([-0.25, 0.0, 0.25], 50, p=[0.1, 0.8, 0.1])
        now = np.clip(then + waver, 0, 1)
        alarms += compare(scores(then.tolist()), scores(now.tolist()), POLICY).verdict == "drifted"
    for _ in range(200):
        then = rng.uniform(0.2, 0.8, 50)
        now = np.clip(then - 0.08 + rng.normal(0, 0.1, 50), 0, 1)
        found += compare(scores(then.tolist()), scores(now.tolist()), POLICY).verdict == "drifted"
    assert alarms <= 6  # 2 are expected; 7 or more have a chance of 0.5%
    assert found >= 180


def test_the_alert_is_one_and_is_resolved() -> None:
    """The same instrument has the same id; an acknowledged alert stays so; steady resolves what is open, once."""
    moved, steady = (compare(scores([0.5] * 50), scores([value] * 50), POLICY) for value in (0.3, 0.5))
    first = alert(OF, moved, POLICY, NOW, None)
    assert first is not None
    assert (first.kind, first.state, first.task, first.source) == ("judge_drift", "open", "support", "judge")
    assert first.evidence["judge"] == "j"
    assert first.evidence["rubric_hash"] == "0" * 16
    assert first.false_alarms_per_year == pytest.approx(0.365)
    assert "-0.200" in first.summary
    assert "n = 50" in first.summary
    again = alert(OF, moved, POLICY, NOW, "acknowledged")
    assert again is not None
    assert (again.id, again.state) == (first.id, "acknowledged")
    back = alert(OF, steady, POLICY, NOW, "acknowledged")
    assert back is not None
    assert (back.id, back.state) == (first.id, "resolved")
    assert alert(OF, steady, POLICY, NOW, "resolved") is None
    assert alert(OF, steady, POLICY, NOW, None) is None
    assert Instrument("support", "j", "helpful.v1", "1" * 16).alert_id != first.id


def test_an_anchor_is_its_content() -> None:
    """Other words are another id, other notes are not; a set has a hash whatever its order."""
    one = Anchor(prompt="How long?", answer="Two days.")
    assert one.content_id("a") == one.model_copy(update={"label": 1.0}).content_id("a")
    assert one.content_id("a") != one.model_copy(update={"answer": "Three days."}).content_id("a")
    assert one.content_id("a") != one.content_id("b")
    assert set_hash(["x", "y"]) == set_hash(["y", "x"]) != set_hash(["x"])
    with pytest.raises(ValueError, match="exactly one of messages, prompt"):
        Anchor(answer="x")

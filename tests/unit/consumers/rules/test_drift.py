"""Which moves are told of: effect and significance and persistence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from ratchet.consumers.rules.drift import Run, benjamini_hochberg, calmer, rule_on, same_hours, step, threshold
from ratchet.consumers.rules.measurement import Measurement, Window
from ratchet.schemas.drift_policy import DriftPolicy

POLICY = DriftPolicy()
START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def length(effect: float | None = 0.4, p_value: float | None = 1e-9, abstains: str | None = None) -> Measurement:
    """A length that moved."""
    return Measurement(
        "answer_length",
        "output",
        "characters",
        5_000,
        900,
        100.0,
        140.0,
        {},
        "psi",
        effect,
        "ks",
        p_value,
        (),
        abstains,
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_are_scipys(p_values: list[float]) -> None:
    """Benjamini and Hochberg's adjustment is the one of scipy, ties and order included."""
    assert benjamini_hochberg(p_values) == pytest.approx(list(false_discovery_control(p_values)), abs=1e-12)


@pytest.mark.parametrize(
    ("effect", "p_value", "verdict", "word"),
    [
        (0.4, 1e-9, "suspect", "1 of 3 hours"),
        (-0.4, 1e-9, "suspect", "1 of 3 hours"),
        (0.04, 1e-9, "ok", "no effect"),
        (0.4, 0.2, "ok", "no significance"),
        (nan, 1e-9, "abstain", "no effect"),
        (0.4, nan, "abstain", "no p-value"),
        (None, None, "abstain", "no effect"),
    ],
)
def test_effect_and_significance_are_both_needed(
    effect: float | None, p_value: float | None, verdict: str, word: str
) -> None:
    """A large effect that may be chance and a sure one that is small are no move; what is no figure is no evidence."""
    [ruling] = rule_on([length(effect, p_value)], {}, POLICY)
    assert (ruling.verdict, ruling.threshold) == (verdict, POLICY.psi)
    assert word in ruling.reason


def test_a_move_has_to_last_and_abstentions_neither_end_nor_make_it() -> None:
    """Three windows in a row make a drift; one that says nothing in between keeps the run, a good one ends it."""
    run, verdicts = Run(), []
    hours = [length(), length(abstains="too few"), length(), length(), length(0.0), length()]
    for hour in hours:
        [ruling] = rule_on([hour], {"answer_length": run}, POLICY)
        run = ruling.run
        verdicts.append(ruling.verdict)
    assert verdicts == ["suspect", "abstain", "suspect", "drift", "ok", "suspect"]
    assert run == Run(1, 0)


def test_one_small_p_value_among_many_metrics_is_no_discovery() -> None:
    """p = 0.02 of one metric moves alone, and does not among nineteen in which nothing happened."""
    alone = rule_on([length(p_value=0.02)], {}, POLICY)
    calm = [length(p_value=0.5) for _ in range(19)]
    among = rule_on([length(p_value=0.02), *calm], {}, POLICY)
    assert (alone[0].verdict, among[0].verdict) == ("suspect", "ok")
    assert among[0].q_value == pytest.approx(0.4)


def test_a_metric_may_have_a_threshold_of_its_own() -> None:
    """The policy's threshold for a metric comes before that of its kind of effect, for every version of a judge."""
    own = DriftPolicy(thresholds={"judge_score": 0.03})
    score = Measurement("judge_score:j:helpful.v1#abc", "output", "score", 900, 900, effect_name="relative")
    assert threshold(score, own) == 0.03
    assert threshold(score, POLICY) == POLICY.relative


@given(st.lists(st.sampled_from(["ok", "suspect", "drift", "abstain"]), max_size=50))
def test_a_run_is_of_bad_hours_or_of_good_ones(verdicts: list[str]) -> None:
    """Never both at once, and no longer than the hours that said something."""
    run = Run()
    for verdict in verdicts:
        run = step(run, verdict)  # type: ignore[arg-type]
        assert run.streak == 0 or run.calm == 0
    assert run.streak + run.calm <= sum(verdict != "abstain" for verdict in verdicts)


@given(st.integers(0, 24 * 90), st.sampled_from([24, 168, 336, 1000]), st.sampled_from([1, 6, 24]))
def test_hours_of_the_week_lie_in_the_baseline(hours: int, baseline_hours: int, window_hours: int) -> None:
    """The hours compared with are the same of the week, within the baseline; before two weeks there are none."""
    window = Window(START + hours * HOUR, START + (hours + window_hours) * HOUR)
    baseline = Window(START, min(START + baseline_hours * HOUR, window.since))
    found = same_hours(baseline, window)
    if window.until - START < timedelta(days=14):
        assert found is None
    elif baseline_hours >= 336:
        assert found is not None
    if found is not None:
        assert (window.since - found.since) % timedelta(days=7) == timedelta(0)
        assert found.until - found.since == window.until - window.since
        assert baseline.since <= found.since
        assert found.until <= baseline.until


def test_of_two_baselines_the_calmer_counts() -> None:
    """A metric moved only if it moved against both; a baseline that says nothing is not asked."""
    far, near, silent = length(0.4), length(-0.1), length(abstains="too few")
    assert calmer(far, near) is near
    assert calmer(near, far) is near
    assert calmer(far, silent) is far
    assert calmer(silent, far) is far

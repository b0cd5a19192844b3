"""The required page and its two earlier warnings, hour by hour, bad hours included."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf, log, nan

import pytest

from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality import Cusum, Detector, Page, Thresholds, cusum, detector, fold, page
from ratchet.consumers.rules.quality_baseline import Baseline
from ratchet.consumers.rules.rates import Rate, RateThresholds, bernoulli, compared
from ratchet.consumers.rules.residuals import mean_time, siegmund_limit

START = datetime(2026, 11, 2, tzinfo=UTC)
END = START + timedelta(days=99)
BASE = Baseline(mean=0.8, variance=0.04, between=0.0004, phi=0.5, n=100, hours=336)
USUAL = Thresholds()
RULES = ((page, Page(BASE)), (cusum, Cusum(BASE)), (detector, Detector(BASE)))


def at(number: int, mean: float = 0.8, n: float = 100.0, variance: float = 0.04) -> HourValue:
    """The ``number``th hour."""
    return HourValue(START + timedelta(hours=number), n, mean, variance)


def outcomes(update, state, hours, until=END) -> list[str]:
    """What a rule says of hours."""
    return [verdict.outcome for verdict in fold(update, state, hours, USUAL, until)[1]]


def test_three_bad_hours_in_a_row_page_and_a_good_one_ends_it() -> None:
    """Two hours 10% down are suspect, the third pages, with its first hour named; a good hour is quiet again."""
    found = outcomes(page, Page(BASE), [at(0), at(1, 0.72), at(2, 0.72), at(3, 0.72), at(4, 0.72), at(5)])
    assert found == ["quiet", "suspect", "suspect", "alarm", "alarm", "quiet"]
    state, verdicts = fold(page, Page(BASE), [at(1, 0.72), at(2, 0.72), at(3, 0.72)], USUAL, END)
    assert (state.since, verdicts[-1].since, verdicts[-1].statistic) == (at(1).hour, at(1).hour, 3)


def test_a_drop_that_hours_vary_by_anyway_does_not_page() -> None:
    """6% down with hours that vary by 10% is below the drop and within the noise: quiet."""
    restless = replace(BASE, between=0.0064)
    assert outcomes(page, Page(restless), [at(i, 0.752) for i in range(5)]) == ["quiet"] * 5
    assert outcomes(page, Page(BASE), [at(i, 0.7) for i in range(3)])[-1] == "alarm"


@pytest.mark.parametrize("blind", [at(2, 0.2, n=5), at(2, nan), at(2, 0.2, n=inf), at(2, 0.72, variance=-1)])
def test_an_hour_that_says_nothing_neither_counts_nor_calms(blind: HourValue) -> None:
    """Too few observations or no number: abstain, keep the run, and the third judged bad hour pages."""
    assert outcomes(page, Page(BASE), [at(0, 0.72), at(1, 0.72), blind, at(3, 0.72)])[2:] == ["abstain", "alarm"]


def test_missing_hours_keep_a_run_for_a_while_and_then_it_lapses_aloud() -> None:
    """Three hours that never came are bridged; after four the run begins anew, and an empty hour then says so."""
    assert outcomes(page, Page(BASE), [at(0, 0.72), at(1, 0.72), at(5, 0.72)])[-1] == "alarm"
    assert outcomes(page, Page(BASE), [at(0, 0.72), at(1, 0.72), at(6, 0.72)])[-1] == "suspect"
    hours = [at(0, 0.72), at(1, 0.72), *(at(i, 0.72, n=1) for i in range(2, 6))]
    last = fold(page, Page(BASE), hours, USUAL, END)[1][-1]
    assert last.outcome == "abstain"
    assert "2 bad hours lapsed after 4 hours without a judgement" in last.reason


@pytest.mark.parametrize(("update", "state"), RULES)
def test_clocks_that_jump(update, state) -> None:
    """An hour that is not after the last is ignored with its reason; folding sorts, and leaves the future out."""
    state, _ = update(state, at(5), USUAL)
    for again in (at(5, 0.1), at(4, 0.1)):
        kept, verdict = update(state, again, USUAL)
        assert (kept, verdict.outcome) == (state, "ignored")
        assert "fold the hours again" in verdict.reason
    with pytest.raises(ValueError, match=r"hour=2026-11-02T00:00:00; allowed: a time with a zone"):
        update(state, replace(at(0), hour=datetime(2026, 11, 2)), USUAL)


@pytest.mark.parametrize(("update", "state"), RULES)
def test_late_amendments_and_hours_ahead_of_the_clock(update, state) -> None:
    """Hours in any order, one amended twice and one from next year: the same verdicts as the true hours in order."""
    true = [at(0), at(1, 0.7), at(2, 0.71), at(3, 0.72), at(4, 0.7)]
    jumbled = [at(3, 0.9), at(9000, 0.1), true[4], at(1, nan), true[1], true[0], true[3], true[2]]
    until = START + timedelta(hours=5)
    assert fold(update, state, jumbled, USUAL, until) == fold(update, state, true, USUAL, until)
    assert "alarm" in outcomes(update, state, true, until)


@pytest.mark.parametrize(("update", "state"), RULES)
def test_without_a_baseline_every_hour_abstains(update, state) -> None:
    """A baseline of too few hours alarms nobody and says why."""
    none = replace(state, baseline=Baseline(abstains="3 judged hours, fewer than 24"))
    _, verdict = update(none, at(0, 0.1), USUAL)
    assert (verdict.outcome, verdict.reason) == ("abstain", "no baseline: 3 judged hours, fewer than 24")


def test_one_class_only() -> None:
    """Answers that were all alike have no spread: the page goes by the drop alone, the other two abstain."""
    alike = Baseline(mean=1.0, n=100, hours=336)
    assert outcomes(page, Page(alike), [at(i, 0.9) for i in range(3)])[-1] == "alarm"
    assert outcomes(page, Page(alike), [at(i, 0.96) for i in range(3)]) == ["quiet"] * 3
    for update, state in ((cusum, Cusum(alike)), (detector, Detector(alike))):
        assert outcomes(update, state, [at(0, 0.9)]) == ["abstain"]


def test_early_warnings_begin_again_after_an_alarm_and_name_the_first_hour() -> None:
    """CUSUM and e-detector cross within hours of a 10% fall, then start from nothing; a rise never alarms."""
    hours = [at(0), at(1), *(at(i, 0.7) for i in range(2, 8))]
    for update, state in RULES[1:]:
        verdicts = fold(update, state, hours, USUAL, END)[1]
        crossed = next(verdict for verdict in verdicts if verdict.outcome == "alarm")
        assert crossed.since == at(2).hour
        assert crossed.statistic >= crossed.limit
        assert "alarm" not in outcomes(update, state, [at(i, 0.99) for i in range(200)])


def test_cusum_limits_are_siegmunds() -> None:
    """The research's CUSUM (k 0.82, h 4.6: a false alarm in 400 days or so) is what the formula gives, both ways."""
    assert mean_time(0.82, 4.6) / 24 == pytest.approx(396, abs=1)
    assert mean_time(0.5, siegmund_limit(0.5, 8760)) == pytest.approx(8760)


def test_thresholds_say_what_is_allowed() -> None:
    """A threshold that makes no sense is named with its value and its range."""
    with pytest.raises(ValueError, match=r"drop=1.5; allowed: between 0 and 1"):
        Thresholds(drop=1.5)
    with pytest.raises(ValueError, match=r"z=nan; allowed: >= 0"):
        Thresholds(z=nan)
    with pytest.raises(ValueError, match=r"bets=\(\); allowed: one or more"):
        Thresholds(bets=())
    with pytest.raises(ValueError, match=r"rise=0; allowed: between 0 and 1"):
        RateThresholds(rise=0)


def rate(number: int, share: float, n: float = 100.0) -> HourValue:
    """An hour of a rate."""
    return at(number, share, n, share * (1 - share))


def test_bernoulli_cusum_counts_evidence_for_a_higher_rate() -> None:
    """One hour of 100 at 8% against 2% and 7% adds Σ ln LR; a night without data leaves the sum; enough is an alarm."""
    base = Baseline(mean=0.02, variance=0.0196, n=100, hours=336)
    state, verdict = bernoulli(Rate(base), rate(0, 0.08), RateThresholds())
    assert verdict.statistic == pytest.approx(8 * log(0.07 / 0.02) + 92 * log(0.93 / 0.98))
    state, empty = bernoulli(state, rate(1, 0.0, n=3), RateThresholds())
    assert (empty.outcome, empty.statistic) == ("abstain", verdict.statistic)
    _, third = bernoulli(state, rate(9, 0.08), RateThresholds())
    assert third.outcome == "alarm"
    assert bernoulli(Rate(base), rate(0, 1.2), RateThresholds())[1].outcome == "abstain"


def test_a_rate_that_was_never_seen_is_not_impossible() -> None:
    """With no refusal in the baseline p0 is small and not 0; hours of no refusals stay quiet, refusals alarm."""
    never = Baseline(mean=1e-12, n=50, hours=100)
    assert compared(never, START, 0.05)[0] == pytest.approx(1 / 5002)
    state, verdict = bernoulli(Rate(never), rate(0, 0.0), RateThresholds())
    assert verdict.outcome == "quiet"
    assert bernoulli(state, rate(1, 0.2), RateThresholds())[1].outcome == "alarm"

"""Shifts as people write them, and recorded hours made into many."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ratchet.consumers.backtest import METRICS, generated, recorded
from ratchet.consumers.rules.backtest import parse_shift, resample
from ratchet.consumers.rules.bins import Counts, bin_of
from ratchet.consumers.rules.drift_arrays import length_distances
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.measuring import Sums, lengths
from ratchet.consumers.rules.recorded_lengths import regroup
from ratchet.consumers.rules.simulation import Noise, effects

START = datetime(2026, 11, 2, tzinfo=UTC)


def test_shifts_are_read_with_their_unit() -> None:
    """Percent are of the value, points are added, and a rate stays within 0 and 1."""
    assert parse_shift("judge_score=-7%", METRICS).put(np.array([0.8])) == pytest.approx(0.744)
    assert parse_shift("refusals = +5pp", METRICS).put(np.array([0.02, 0.99])).tolist() == [pytest.approx(0.07), 1.0]
    assert parse_shift("answer_length=+20.5%", METRICS).size == pytest.approx(0.205)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("judge_score", r"allowed: <metric>=<sign><number>% or pp"),
        ("judge_score=7%", r"allowed: <metric>=<sign><number>% or pp"),
        ("judge_score=+nan%", r"allowed: <metric>=<sign><number>% or pp"),
        ("tone=-7%", r"metric 'tone'; allowed: judge_score, satisfaction"),
        ("judge_score=+0%", r"allowed: more than -100% and up to"),
        ("judge_score=-100%", r"allowed: more than -100% and up to"),
        ("latency=+5pp", r"in points; allowed for judge_score"),
    ],
)
def test_bad_shifts_say_what_is_allowed(text: str, says: str) -> None:
    """Each bad shift is named with what is allowed."""
    with pytest.raises(ValueError, match=says):
        parse_shift(text, METRICS)


def hours(count: int, phi: float = 0.7) -> list[HourValue]:
    """Recorded hours with a night of a few answers each day."""
    means = 0.8 + 0.02 * effects(np.random.default_rng(1), 1, count, phi)[0]
    return [
        HourValue(START + timedelta(hours=i), 5.0 if i % 24 < 4 else 200.0, float(mean), 0.03)
        for i, mean in enumerate(means)
    ]


def test_resampled_hours_keep_mean_gaps_and_correlation() -> None:
    """A month's hours as 200 series: the same mean, share of small hours and correlation of neighbours."""
    mean, n, base = resample(np.random.default_rng(2), hours(720), 20, 200, 240)
    assert mean.shape == n.shape == (200, 240)
    assert np.nanmean(mean) == pytest.approx(base.mean, abs=0.004)
    assert (n < 20).mean() == pytest.approx(4 / 24, abs=0.01)
    centred = mean - np.nanmean(mean)
    neighbours = np.nanmean(centred[:, 1:] * centred[:, :-1]) / np.nanmean(centred**2)
    assert neighbours == pytest.approx(0.6, abs=0.15)


def test_too_few_recorded_hours_are_refused() -> None:
    """Two days cannot stand for 10,000, nor can an empty recording or one of NaN."""
    shift = [parse_shift("judge_score=-7%", METRICS)]
    for few in (hours(48), [], [HourValue(one.hour, 50, float("nan"), 0.1) for one in hours(200)]):
        with pytest.raises(ValueError, match=r"judge_score: recorded traffic: .* judged hours, .*at least 72"):
            list(recorded(shift, {"judge_score": few}, 100, 0))


def test_a_seed_makes_the_same_backtest_and_shifts_are_found() -> None:
    """Recorded and generated: the same figures twice, 10% found by every rule, and the length's +50% as well."""
    shifts = [parse_shift(text, METRICS) for text in ("judge_score=-10%", "refusals=+10pp", "latency=+50%")]
    read = {
        "judge_score": hours(400),
        "refusals": [HourValue(h.hour, h.n, 0.02 + 0.01 * (i % 3), 0.02) for i, h in enumerate(hours(400))],
        "latency": [HourValue(h.hour, h.n, 900 + h.mean, 90_000) for h in hours(400)],
    }
    first = list(recorded(shifts, read, 100, 7))
    assert first == list(recorded(shifts, read, 100, 7))
    assert {one.rule for one in first} == {"drop_alone", "page", "cusum", "detector", "bernoulli", "drift"}
    assert all(one.delay.found > 0.9 for one in first), first
    longer = [*shifts, parse_shift("answer_length=+50%", METRICS)]
    made = list(generated(longer, Noise(1000, 0.01, 0.3), 100, 7))
    assert all(one.delay.found == 1 for one in made if one.rule != "ks_alone"), made


def length_bins(count: int, per_hour: int = 600) -> dict[datetime, dict[int, int]]:
    """Hours of lognormal lengths around 200 characters, counted by the rollups' bins; every tenth hour is a gap."""
    random, start = np.random.default_rng(4), datetime(2026, 10, 5, tzinfo=UTC)
    made = {}
    for hour in range(count):
        if hour % 10:
            values = np.exp(random.normal(np.log(200), 0.6, per_hour)).astype(int)
            made[start + timedelta(hours=hour)] = dict(Counter(bin_of(int(value)) for value in values))
    return made


def test_recorded_lengths_are_judged_by_their_distribution() -> None:
    """PSI and KS over the recorded bins, gaps and all: the same for a seed, calm stays calm, +30% is found in hours."""
    hours_ = length_bins(200)
    shift = [parse_shift("answer_length=+30%", METRICS)]
    (one,) = recorded(shift, {"answer_length": []}, 200, 3, lengths={"answer_length": hours_})
    assert [one] == list(recorded(shift, {"answer_length": []}, 200, 3, lengths={"answer_length": hours_}))
    assert (one.rule, one.false_alarms.count, one.delay.found) == ("drift", 0, 1.0)
    assert one.delay.median is not None
    assert one.delay.median <= 6
    assert "resampled from 180 recorded hours, by their distributions" in one.note
    with pytest.raises(
        ValueError, match=r"answer_length: recorded traffic: 45 hours with n >= 20; allowed: at least 72"
    ):
        list(recorded(shift, {"answer_length": []}, 200, 3, lengths={"answer_length": length_bins(50)}))


def test_regrouped_hours_measure_as_the_report_does() -> None:
    """An hour beside all of them: the report's PSI over its tenths, and its KS but for the finer bins."""
    hours_ = length_bins(200)
    known = regroup(hours_, 0.25, 20)
    whole = Counter[int]()
    for bins in hours_.values():
        whole.update(bins)
    first = next(iter(hours_.values()))
    found = lengths(
        "answer_length", "output", "characters", Counts.of_bins(whole, first),
        Sums(float(whole.total()), 200.0, 1.0), Sums(600.0, 200.0, 1.0),
    )  # fmt: skip
    before, now = np.nansum(known.calm, 0), known.calm[0]
    effect, p = length_distances(before[None, None], now[None, None], known.starts)
    assert effect[0, 0] == pytest.approx(found.effect, rel=0.25)
    assert p[0, 0] == pytest.approx(found.p_value, abs=0.15)
    assert np.nansum(known.moved) == np.nansum(known.calm), "no text is lost"

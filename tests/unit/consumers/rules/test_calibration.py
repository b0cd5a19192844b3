"""The maths of calibration, against statsmodels and ppi-python, and the coverage of its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from ratchet.consumers.rules.calibration import (
    NOTHING,
    NoCorrection,
    Sums,
    Z,
    corrected,
    kappa,
    mean,
    prediction_powered,
    rate,
)

unit = st.floats(0, 1)
weights = st.floats(0.5, 50)
items = st.lists(st.tuples(unit, unit, weights), min_size=2, max_size=40)


def share(k: int, n: int) -> Sums:
    """``k`` ones among ``n``, of weight 1."""
    return Sums(n=n, w=n, ww=n, wf=k, wwf=k, wwff=k)


@given(items, items)
def test_sums_add_up(one: list[tuple[float, float, float]], other: list[tuple[float, float, float]]) -> None:
    """The sums of two sets together are the sum of their sums, and a mean lies within its values."""
    both = Sums.of(one) + Sums.of(other)
    at_once = Sums.of([*one, *other])
    for name in Sums.__slots__:
        assert getattr(both, name) == pytest.approx(getattr(at_once, name))
    assert min(f for _, f, _ in one + other) - 1e-9 <= both.mean_f <= max(f for _, f, _ in one + other) + 1e-9
    assert both.effective_n <= both.n + 1e-9


@pytest.mark.parametrize("bad", [(math.nan, 0.5, 1.0), (0.5, math.inf, 1.0), (0.5, 0.5, 0.0), (0.5, 0.5, math.nan)])
def test_numbers_that_are_none_are_refused(bad: tuple[float, float, float]) -> None:
    """NaN, infinity and a weight of 0 are refused, and the message says what is allowed."""
    with pytest.raises(ValueError, match="allowed: "):
        Sums.of([bad])


@given(n=st.integers(1, 3_000), part=unit, weight=weights)
def test_a_rate_of_equal_weights_has_wilsons_interval(n: int, part: float, weight: float) -> None:
    """Weights that are all the same change nothing: statsmodels' Wilson interval of the counts."""
    k = round(n * part)
    found = rate(Sums(n=n, w=n * weight, ww=n * weight**2, wf=k * weight, wwf=k * weight**2, wwff=k * weight**2))
    assert found is not None
    assert (found.low, found.high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-9)
    assert found.variance == pytest.approx(k / n * (1 - k / n) / n, abs=1e-12)
    assert rate(NOTHING) is None
    assert mean(share(1, 1)) is None


tables = st.integers(2, 5).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 60), min_size=size, max_size=size), min_size=size, max_size=size)
)


@given(tables, st.booleans())
def test_kappa_is_that_of_statsmodels(table: list[list[int]], ordinal: bool) -> None:
    """Plain and weighted κ with their standard errors are statsmodels'; where κ is 0/0 it is None."""
    found = kappa(table, ordinal=ordinal)
    if found is None:
        rows, columns = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)]
        assert sum(rows) == 0 or max(rows) == sum(rows) == max(columns)
        return
    expected = cohens_kappa(table, wt="quadratic" if ordinal else None)
    assert found.value == pytest.approx(expected.kappa, abs=1e-9)
    assert found.variance == pytest.approx(max(0.0, expected.var_kappa), abs=1e-9)
    assert -1 <= found.low <= found.value <= found.high <= 1


@given(
    p=st.integers(0, 500),
    hits=st.integers(0, 80),
    good=st.integers(1, 80),
    kept=st.integers(0, 80),
    bad=st.integers(1, 80),
)
def test_the_corrected_rate_is_rogan_and_gladens(p: int, hits: int, good: int, kept: int, bad: int) -> None:
    """θ̂ and its variance are the formulas', within 0–1, and the interval holds θ̂; at q0 + q1 ≤ 1 it is refused."""
    q1, q0, rate_seen = min(hits, good) / good, min(kept, bad) / bad, p / 500
    sums = share(p, 500), share(min(hits, good), good), share(min(kept, bad), bad)
    if q0 + q1 - 1 <= 1e-9:
        with pytest.raises(NoCorrection, match="is not above 1"):
            corrected(*sums)
        return
    found = corrected(*sums)
    value = min(1.0, max(0.0, (rate_seen + q0 - 1) / (q0 + q1 - 1)))
    spread = (
        rate_seen * (1 - rate_seen) / 500 + (1 - value) ** 2 * q0 * (1 - q0) / bad + value**2 * q1 * (1 - q1) / good
    )
    assert found.value == pytest.approx(value)
    assert found.variance == pytest.approx(spread / (q0 + q1 - 1) ** 2)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_rate_that_cannot_be_corrected_says_why() -> None:
    """Labels of one class, no label, or nothing judged: each has its own words."""
    some = share(8, 10)
    for sums, why in [
        ((NOTHING, some, some), "no answer"),
        ((some, NOTHING, some), "no label of a good answer"),
        ((some, some, NOTHING), "no label of a bad answer"),
    ]:
        with pytest.raises(NoCorrection, match=why):
            corrected(*sums)
    with pytest.raises(NoCorrection, match="1 labels"):
        prediction_powered(Sums.of([(1, 1, 1)]), some)


def test_a_perfect_judge_corrects_nothing() -> None:
    """Without errors on many labels the corrected rate is the naive one, with nearly the naive interval."""
    found, naive = corrected(share(700, 1_000), share(5_000, 5_000), share(5_000, 5_000)), rate(share(700, 1_000))
    assert naive is not None
    assert found.value == naive.value
    assert (found.low, found.high) == pytest.approx((naive.low, naive.high), abs=1e-3)


@settings(deadline=None)
@given(items, st.lists(st.tuples(unit, weights), min_size=2, max_size=60), unit)
def test_prediction_powered_means_are_those_of_ppi_python(
    labelled: list[tuple[float, float, float]], rest: list[tuple[float, float]], power: float
) -> None:
    """The estimate is ppi-python's with and without weights, and the interval too where no weights are."""
    ppi = pytest.importorskip("ppi_py", reason="ppi-python is in the dev extra")
    y, f, w = (np.array(column) for column in zip(*labelled, strict=True))
    f_rest, w_rest = (np.array(column) for column in zip(*rest, strict=True))
    unlabelled = Sums.of([(0.0, value, weight) for value, weight in rest])
    found, used = prediction_powered(Sums.of(labelled), unlabelled, power)
    expected = ppi.ppi_mean_pointestimate(y, f, f_rest, lam=power, w=w, w_unlabeled=w_rest)
    assert used == power
    assert found.value == pytest.approx(float(np.squeeze(expected)), abs=1e-9)
    plain, _ = prediction_powered(
        Sums.of([(a, b, 1.0) for a, b, _ in labelled]), Sums.of([(0.0, value, 1.0) for value, _ in rest]), power
    )
    low, high = ppi.ppi_mean_ci(y, f, f_rest, alpha=0.05, lam=power)
    assert (plain.low, plain.high) == pytest.approx((float(np.squeeze(low)), float(np.squeeze(high))), abs=1e-6)


@given(items, st.lists(st.tuples(unit, weights), min_size=2, max_size=60))
def test_the_tuned_power_has_the_least_variance(
    labelled: list[tuple[float, float, float]], rest: list[tuple[float, float]]
) -> None:
    """No λ on a grid gives a smaller variance than the tuned one, which lies between 0 and 1."""
    labels, unlabelled = Sums.of(labelled), Sums.of([(0.0, value, weight) for value, weight in rest])
    tuned, power = prediction_powered(labels, unlabelled, None)
    assert 0 <= power <= 1
    for step in range(11):
        assert tuned.variance <= prediction_powered(labels, unlabelled, step / 10)[0].variance + 1e-12


def test_the_tuned_power_is_ppi_pythons_on_many_answers() -> None:
    """On 400 labels of 8,000 answers λ and the interval are ppi-python's to the second digit."""
    ppi = pytest.importorskip("ppi_py", reason="ppi-python is in the dev extra")
    rng = np.random.default_rng(5)
    truth = rng.random(8_000) < 0.7
    score = np.clip(np.where(truth, 0.75, 0.4) + rng.normal(0, 0.2, 8_000), 0, 1)
    y, f, rest = truth[:400].astype(float), score[:400], score[400:]
    found, power = prediction_powered(
        Sums.of([(a, b, 1.0) for a, b in zip(y, f, strict=True)]), Sums.of([(0.0, one, 1.0) for one in rest]), None
    )
    low, high = ppi.ppi_mean_ci(y, f, rest, alpha=0.05)
    assert (found.low, found.high) == pytest.approx((float(np.squeeze(low)), float(np.squeeze(high))), abs=2e-3)
    assert 0.5 < power <= 1


@pytest.mark.parametrize(
    ("truth", "q1", "q0", "labels"),
    [(0.5, 0.9, 0.8, 50), (0.8, 0.75, 0.75, 100), (0.8, 0.9, 0.8, 200), (0.95, 0.9, 0.8, 200), (0.8, 1.0, 1.0, 50)],
)
def test_the_corrected_interval_covers(truth: float, q1: float, q0: float, labels: int) -> None:
    """Over 1,000 seeded draws (2,000 answers judged) the corrected 95% interval covers the truth at least 93% of times.

    The judge without an error on 50 labels is among them: its variance by the formula is far too small.
    """
    rng = np.random.default_rng(2026)
    covered = refused = 0
    for _ in range(1_000):
        good = int(rng.binomial(labels, truth))
        seen = int(rng.binomial(2_000, truth * q1 + (1 - truth) * (1 - q0)))
        hits, kept = (
            share(int(rng.binomial(good, q1)), good),
            share(int(rng.binomial(labels - good, q0)), labels - good),
        )
        try:
            found = corrected(share(seen, 2_000), hits, kept)
        except NoCorrection:
            refused += 1
            continue
        covered += found.low <= truth <= found.high
    assert refused <= 60
    assert covered / (1_000 - refused) >= 0.93


def test_weighted_means_cover_where_the_plain_mean_does_not() -> None:
    """All refusals and 10% of the rest are judged: weighted, the prediction-powered interval covers, unweighted not."""
    rng = np.random.default_rng(7)
    covered, naive, rate_of_refusals, rounds = 0, 0, 0.2, 300
    truth = rate_of_refusals * 0.1 + (1 - rate_of_refusals) * 0.8
    for _ in range(rounds):
        refusal = rng.random(4_000) < rate_of_refusals
        kept = refusal | (rng.random(4_000) < 0.1)
        refusal = refusal[kept]
        y = (rng.random(refusal.size) < np.where(refusal, 0.1, 0.8)).astype(float)
        f = np.clip(0.25 + 0.5 * y + rng.normal(0, 0.15, y.size), 0, 1)
        w = np.where(refusal, 1.0, 10.0)
        rows = list(zip(y.tolist(), f.tolist(), w.tolist(), strict=True))
        labels, rest = rows[:300], rows[300:]
        found, _ = prediction_powered(Sums.of(labels), Sums.of([(0.0, b, c) for _, b, c in rest]), None)
        covered += found.low <= truth <= found.high
        plain, _ = prediction_powered(
            Sums.of([(a, b, 1.0) for a, b, _ in labels]), Sums.of([(0.0, b, 1.0) for _, b, _ in rest]), None
        )
        naive += plain.low <= truth <= plain.high
    assert 0.92 <= covered / rounds <= 0.98
    assert naive / rounds < 0.1
    assert pytest.approx(1.96, abs=1e-3) == Z

"""Distances and tests over counts, held to scipy, to their formulas and to what must always hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from ratchet.consumers.rules.bins import EXACT, Counts, bin_of, bin_range
from ratchet.consumers.rules.distances import (
    chi_square,
    deviation,
    js,
    ks,
    ks_p,
    pooled,
    psi,
    two_proportions,
    wasserstein,
    welch,
)

SAMPLE = st.lists(st.integers(0, 300), min_size=2, max_size=60)
COUNT = st.integers(0, 1000)
TABLE = st.lists(st.tuples(COUNT, COUNT), min_size=2, max_size=30).filter(
    lambda table: sum(one for one, _ in table) > 0 and sum(other for _, other in table) > 0
)


def exact(before: list[int], now: list[int]) -> Counts:
    """Exact counts of two samples."""
    values = sorted({*before, *now})
    return Counts.of_values(values, [before.count(v) for v in values], [now.count(v) for v in values])


def close(value: float) -> Any:
    """Within a millionth."""
    return pytest.approx(value, abs=1e-6, rel=1e-6)


@given(SAMPLE, SAMPLE)
def test_distances_of_values_are_scipy_s(before: list[int], now: list[int]) -> None:
    """KS with its p, and Wasserstein over exact counts are what scipy finds in the samples."""
    counts = exact(before, now)
    found = stats.ks_2samp(before, now, method="asymp")
    distance = ks(counts.before, counts.now)
    assert distance == close(found.statistic)
    assert ks_p(distance, len(before), len(now)) == close(found.pvalue)
    assert wasserstein(counts.values, counts.before, counts.now) == close(stats.wasserstein_distance(before, now))
    assert deviation(counts.values, counts.before) == close(float(np.std(before)))


@given(SAMPLE, SAMPLE)
def test_distances_of_bins_are_scipy_s_of_their_middles(before: list[int], now: list[int]) -> None:
    """On rollup bins they are scipy's of samples in which each number is its bin's middle."""
    binned: list[dict[int, int]] = [{}, {}]
    for side, sample in zip(binned, (before, now), strict=True):
        for value in sample:
            side[bin_of(value)] = side.get(bin_of(value), 0) + 1
    counts = Counts.of_bins(*binned)
    middles = [[sum(bin_range(bin_of(value))) / 2 for value in sample] for sample in (before, now)]
    assert ks(counts.before, counts.now) == close(stats.ks_2samp(*middles).statistic)
    assert wasserstein(counts.values, counts.before, counts.now) == close(stats.wasserstein_distance(*middles))
    assert ks(counts.before, counts.now) <= stats.ks_2samp(before, now).statistic + 1e-9


@given(TABLE)
def test_divergences_are_scipy_s_and_the_formula_s(table: list[tuple[int, int]]) -> None:
    """JS is scipy's; PSI is its formula with empty bins at their floor, never negative, and 0 for equal shares."""
    before, now = (np.array(side, dtype=float) for side in zip(*table, strict=True))
    assert js(before, now) == close(float(np.nan_to_num(jensenshannon(before, now))))
    shares = []
    for side in (before / before.sum(), now / now.sum()):
        least = min(side[side > 0])
        shares.append([value or (least / 1e6 if least <= 1e-4 else 1e-4) for value in side])
    assert psi(before, now) == close(math.fsum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True)))
    assert psi(before, now) >= 0
    assert psi(before, 3 * before) == close(0.0)


@given(TABLE)
def test_chi_square_is_scipy_s(table: list[tuple[int, int]]) -> None:
    """Statistic and p of the table without its empty bins; pooling leaves at most one bin that expects fewer than 5."""
    before, now = (np.array(side, dtype=float) for side in zip(*table, strict=True))
    some = np.vstack([before, now])[:, before + now > 0]
    if some.shape[1] > 1:
        found = stats.chi2_contingency(some, correction=False)
        statistic, p = chi_square(before, now)
        assert (statistic, p) == (close(found.statistic), close(found.pvalue))
    one, other = pooled(before, now)
    assert (one.sum(), other.sum()) == (before.sum(), now.sum())
    expected = (one + other) * min(one.sum(), other.sum()) / (one.sum() + other.sum())
    assert (expected[:-1] >= 5).all()


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_two_rates_are_tested_as_scipy_does(n: int, n_now: int, data: st.DataObject) -> None:
    """z squared is χ² of the table; where a cell expects fewer than five p is Fisher's."""
    hits, hits_now = data.draw(st.integers(0, n)), data.draw(st.integers(0, n_now))
    table = [[hits, n - hits], [hits_now, n_now - hits_now]]
    z, p, test = two_proportions(hits, n, hits_now, n_now)
    if hits + hits_now in (0, n + n_now):
        assert (z, p) == (0.0, 1.0), "one class only: no difference"
        return
    found = stats.chi2_contingency(table, correction=False)
    assert z**2 == close(found.statistic)
    assert test == ("fisher" if found.expected_freq.min() < 5 - 1e-12 else "z")
    assert p == close(found.pvalue if test == "z" else stats.fisher_exact(table).pvalue)


@given(SAMPLE, SAMPLE)
def test_two_means_are_tested_as_scipy_does(before: list[int], now: list[int]) -> None:
    """Welch's p from means, variances and counts; without variance equal means have p 1 and others 0."""
    stated = [(float(np.mean(sample)), float(np.var(sample)), len(sample)) for sample in (before, now)]
    p = welch(*stated[0], *stated[1])
    if stated[0][1] == stated[1][1] == 0:
        assert p == (1.0 if before[0] == now[0] else 0.0)
    else:
        assert p == close(float(stats.ttest_ind(before, now, equal_var=False).pvalue))


def test_a_side_without_observations_is_refused() -> None:
    """Nothing beside something is an error that names both counts, not a distance of 0."""
    none, some = np.zeros(3), np.ones(3)
    for measure in (ks, psi, js, chi_square):
        with pytest.raises(ValueError, match="at least one observation a side"):
            measure(none, some)
        with pytest.raises(ValueError, match="at least one observation a side"):
            measure(some, none)


@given(st.integers(0, 2**40))
def test_bins_hold_their_numbers_and_are_narrow(value: int) -> None:
    """A number lies in its bin, bins follow each other, and none is wider than 1/32 of its numbers."""
    first, last = bin_range(bin_of(value))
    assert first <= value <= last
    assert bin_of(last + 1) == bin_of(value) + 1
    assert last - first < max(1, first / 32) + 1e-9
    assert (first == last) or value >= EXACT


@given(TABLE, st.integers(2, 12))
def test_groups_keep_every_observation_and_none_is_empty_before(table: list[tuple[int, int]], groups: int) -> None:
    """Quantile groups: at most as many as asked for, contiguous, and the baseline has something in each."""
    before, now = ([count for count in side] for side in zip(*table, strict=True))
    counts = Counts.of_values(list(range(len(table))), before, now)
    coarse = counts.grouped(groups)
    assert 1 <= len(coarse.before) <= groups
    assert (coarse.before.sum(), coarse.now.sum()) == (sum(before), sum(now))
    assert (coarse.before > 0).all()
    assert (coarse.first[1:] == coarse.last[:-1] + 1).all()


@given(SAMPLE, SAMPLE)
def test_equal_bins_are_numpy_s(before: list[int], now: list[int]) -> None:
    """Sturges' bins over both samples, as numpy cuts them; few values are bins of their own."""
    counts = exact(before, now).equal_width()
    if len(set(before)) <= 20:
        assert len(counts.before) == len({*before, *now})
        return
    edges = np.histogram_bin_edges(np.array(before + now), bins="sturges")
    assert counts.before == pytest.approx(np.histogram(before, edges)[0])
    assert counts.now == pytest.approx(np.histogram(now, edges)[0])

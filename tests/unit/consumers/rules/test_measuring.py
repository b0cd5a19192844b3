"""From counts to measurements: effects, abstentions, and clusters of texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.bins import Counts
from ratchet.consumers.rules.clusters import assigned, centroids, labels
from ratchet.consumers.rules.measuring import Sums, lengths, means, rates, shares, versions

COUNT = st.integers(0, 3000)


@given(COUNT, COUNT, COUNT, COUNT)
def test_a_rate_has_an_effect_or_a_reason(hits: int, misses: int, hits_now: int, misses_now: int) -> None:
    """Never both, never neither; p is a probability and 1 where the rates are the same."""
    found = rates("refusals", hits, hits + misses, hits_now, hits_now + misses_now)
    assert (found.abstains is None) == (found.effect is not None) == (found.p_value is not None)
    assert (found.abstains is None) == (min(hits + misses, hits_now + misses_now) >= 30)
    if found.p_value is not None and found.effect is not None:
        assert 0 <= found.p_value <= 1
        if found.effect == 0:
            assert found.p_value == pytest.approx(1.0)


@given(st.dictionaries(st.integers(0, 300), COUNT, min_size=1), st.dictionaries(st.integers(0, 300), COUNT, min_size=1))
def test_lengths_have_an_effect_or_a_reason(before: dict[int, int], now: dict[int, int]) -> None:
    """Below 500 a side PSI and JS are not even named; above, every distance and p is a number within its bounds."""
    n, n_now = sum(before.values()), sum(now.values())
    sums = (Sums(float(n), 1.0, 1.0), Sums(float(n_now), 1.0, 1.0))
    found = lengths("answer_length", "output", "characters", Counts.of_bins(before, now), *sums)
    if min(n, n_now) < 500:
        assert found.abstains is not None
        assert found.effect is None
        assert not {"psi", "js"} & found.distances.keys()
        return
    assert found.effect == found.distances["psi"] >= -1e-12
    assert 0 <= found.distances["ks"] <= 1
    assert 0 <= found.distances["js"] <= math.sqrt(math.log(2)) + 1e-9
    assert found.p_value is not None
    assert 0 <= found.p_value <= 1
    assert all(0 <= moved.before <= 1 and 0 <= moved.now <= 1 for moved in found.top)


def test_no_change_is_relative_to_nothing() -> None:
    """A baseline of zeros abstains unless the window is zeros too; what is not a number abstains."""
    zero, some = Sums(100.0, 0.0, 0.0), Sums(100.0, 2.0, 1.0)
    assert means("cost", "USD", zero, some).abstains == "the baseline's mean is 0: no change is relative to it"
    both = means("cost", "USD", zero, zero)
    assert (both.effect, both.p_value, both.abstains) == (0.0, 1.0, None)
    for bad in (math.nan, math.inf):
        found = means("latency", "ms", some, Sums(100.0, bad, bad))
        assert (found.effect, found.value, found.abstains) == (None, None, "an observation is not a number")


def test_words_of_one_text_are_not_many_observations() -> None:
    """Fifty words that come and go together in 600 texts are as significant as one would be, not as fifty."""
    one = shares("answer_terms", "output", ["a", "b"], [300, 300], [330, 270], 600, 600)
    words = [f"{side}{number}" for side in "ab" for number in range(25)]
    many = shares("answer_terms", "output", words, [300] * 50, [330] * 25 + [270] * 25, 600, 600)
    assert one.p_value is not None
    assert many.p_value is not None
    assert many.p_value > one.p_value > 0.05
    assert many.effect == pytest.approx(one.effect)


def test_a_new_judge_is_no_drift() -> None:
    """The version with most scores has the metric's name; one that the baseline lacks abstains."""
    old, new = Sums(400.0, 0.8, 0.04), Sums(500.0, 0.6, 0.04)
    main, other = versions("judge_score", "score", {"j1": old}, {"j1": Sums(90.0, 0.79, 0.04), "j2": new})
    assert (main.metric, main.value, other.metric) == ("judge_score", 0.6, "judge_score:j1")
    assert main.abstains == "j2 scored none of the baseline, other versions did"
    assert other.abstains is None
    several = {"panel:a+b": new, "a": new, "b": new}
    assert {one.metric for one in versions("judge_score", "score", several, several)} == {
        "judge_score", "judge_score:a", "judge_score:b",
    }  # fmt: skip
    assert [one.abstains for one in versions("judge_score", "score", {}, {})] == ["no observations in the baseline"]


def test_clusters_are_found_and_named() -> None:
    """Three directions give three clusters, the same every time, each named by its words."""
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(3), 40)
    vectors = np.eye(8)[truth] + 0.1 * rng.normal(size=(120, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = centroids(vectors, 3, seed=0)
    assert np.array_equal(found, centroids(vectors, 3, seed=0))
    of = assigned(vectors, found)
    assert all(len(set(of[truth == cluster])) == 1 for cluster in range(3))
    texts = [("parcel late", "refund the card", "reset password")[cluster] for cluster in truth]
    names = labels(texts, of, 3)
    assert sorted(name.split(": ")[1] for name in names) == ["card refund the", "late parcel", "password reset"]
    assert len(centroids(vectors[:1].repeat(5, axis=0), 3, seed=0)) == 1, "fewer texts than clusters"

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from statsmodels.stats.proportion import proportion_confint

from ratchet.consumers.rules.intervals import events_per, wilson


@given(n=st.integers(1, 5_000), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_same_figures_as_statsmodels(n: int, share: float, confidence: float) -> None:
    """Wilson's interval is statsmodels' within 1e-9 and holds the rate."""
    k = min(n, round(n * share))
    low, high = wilson(k, n, confidence)
    expected = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert low <= k / n <= high


def test_nothing_observed_says_nothing() -> None:
    """No trials give the whole range, and impossible counts are refused."""
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="allowed"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, 1.0)


def test_rates_of_events_are_close_to_the_exact_poisson_limits() -> None:
    """Byar's limits lie within 2% of the exact ones; none seen is not none; clusters widen them."""
    for k in (1, 3, 10, 100, 2000):
        low, high = events_per(k, 10.0)
        assert low * 10 == pytest.approx(chi2.ppf(0.025, 2 * k) / 2, rel=0.02, abs=0.02)
        assert high * 10 == pytest.approx(chi2.ppf(0.975, 2 * k + 2) / 2, rel=0.02)
    assert events_per(0, 10.0)[0] == 0
    assert events_per(0, 10.0)[1] == pytest.approx(0.369, rel=0.01)
    narrow, wide = events_per(100, 1.0), events_per(100, 1.0, dispersion=4)
    assert wide[0] < narrow[0] < 100 < narrow[1] < wide[1]
    for bad in ((-1, 1.0, 1.0, 0.95), (1, 0.0, 1.0, 0.95), (1, 1.0, 0.5, 0.95), (1, 1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="allowed"):
            events_per(*bad)

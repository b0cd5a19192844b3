from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from ratchet.consumers.rules.intervals import wilson


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

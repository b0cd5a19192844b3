"""What ends or holds a stage without a gate, against scipy's tests and against its own error rates."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.schemas.rollout_policy import BurstPolicy
from ratchet.services.rules.rollouts.evidence import Burst, Split
from ratchet.services.rules.rollouts.guards import burst_reason, fisher, log_e_mismatch, mismatch_reason

counts = st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted)


@given(old=counts, new=counts)
def test_the_bursts_test_is_fishers(old: list[int], new: list[int]) -> None:
    """The same p-value as scipy's one-sided exact test, for any counts."""
    seen = Burst(old[1], old[0], new[1], new[0])
    rows = [[new[0], new[1] - new[0]], [old[0], old[1] - old[0]]]
    assert fisher(seen) == pytest.approx(stats.fisher_exact(rows, alternative="greater").pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("seen", "ends"),
    [
        (Burst(0, 0, 9, 9), False),
        (Burst(0, 0, 10, 5), True),
        (Burst(0, 0, 10, 4), False),
        (Burst(200, 1, 10, 5), True),
        (Burst(20, 18, 20, 20), False),
    ],
)
def test_a_burst_is_many_failures_of_the_candidate_alone(seen: Burst, ends: bool) -> None:
    """Too few calls, too small a share, or model servers that are ill for both arms end nothing."""
    assert (burst_reason(seen, BurstPolicy()) is not None) == ends


def test_the_splits_e_value_has_mean_one_under_the_planned_share() -> None:
    """Summed over the binomial: so it exceeds 1/alpha at any look with at most the chance alpha (Ville)."""
    n, share = 60, 0.2
    chances = [float(stats.binom.pmf(k, n, share)) for k in range(n + 1)]
    mean = math.fsum(p * math.exp(log_e_mismatch(n, k, share)) for k, p in enumerate(chances))
    assert mean == pytest.approx(1.0)


def test_a_fair_split_is_rarely_called_unfair_and_an_unfair_one_soon() -> None:
    """Ten thousand looks at a fair 5% split: at most alpha false alarms; a split of 6% is found within 40,000 users."""
    rng = np.random.default_rng(20261129)

    def found(share: float, users: int, runs: int) -> float:
        alarms = 0
        for _ in range(runs):
            arrived = np.cumsum(rng.random(users) < share)
            alarms += any(
                mismatch_reason(Split(n - int(arrived[n - 1]), int(arrived[n - 1]), 500), 0.01)
                for n in range(100, users, 100)
            )
        return alarms / runs

    assert found(0.05, 10_000, 300) <= 0.01 + 2.5 * math.sqrt(0.01 * 0.99 / 300)
    assert found(0.06, 40_000, 20) == 1.0


def test_a_stage_without_a_split_has_no_mismatch() -> None:
    """Nobody to split in shadow, everybody at 100%, nobody yet."""
    assert mismatch_reason(Split(10, 0, 0), 0.001) is None
    assert mismatch_reason(Split(0, 500, 10_000), 0.001) is None
    assert mismatch_reason(Split(0, 0, 500), 0.001) is None

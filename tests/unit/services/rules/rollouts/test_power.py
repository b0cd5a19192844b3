"""Power in closed form, beside the real rules in simulated traffic and beside textbook formulas."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import normal_power_het
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail

from ratchet.schemas.rollout_policy import BurstPolicy, Gate
from ratchet.services.rules.rollouts import gates
from ratchet.services.rules.rollouts.evidence import Burst, Evidence, Exceedances, Means, Sample
from ratchet.services.rules.rollouts.guards import burst_reason
from ratchet.services.rules.rollouts.power import burst_alarms, chance_to_pass, least_max_n, unit_variance
from ratchet.services.rules.rollouts.sequential import OVERSHOOT
from ratchet.services.rules.rollouts.traffic import LATENCY, Signal, Traffic

COMPLETION = Gate(metric="completion", margin=0.02, max_n=3_000)
NINETY = Signal(0.9)
ANY = Traffic(1_000, {})


def test_the_chance_to_have_passed_is_the_simulated_one() -> None:
    """By n observations, looks every 50, as many of 600 equal candidates pass the real gate as the formula says."""
    rng = np.random.default_rng(3)
    new = rng.binomial(50, 0.9, (600, 60)).cumsum(axis=1)
    old = rng.binomial(50 * 19, 0.9, (600, 60)).cumsum(axis=1)
    passed_at = []
    for rollout in range(600):
        for n in range(50, 3_001, 50):
            k_old, k_new = int(old[rollout, n // 50 - 1]), int(new[rollout, n // 50 - 1])
            arms = Means(Sample.proportion(19 * n, k_old), Sample.proportion(n, k_new))
            if gates.evaluate(COMPLETION, Evidence((arms,))).verdict == "pass":
                passed_at.append(n)
                break
    for n in (1_000, 1_500, 2_000, 3_000):
        simulated = sum(at <= n for at in passed_at) / 600
        assert simulated == pytest.approx(chance_to_pass(COMPLETION, NINETY, ANY, 0.05, n), abs=0.06)


def test_without_looks_in_between_it_is_the_textbooks_power() -> None:
    """The chance to be above the bound at the end alone is statsmodels' power of a z-test at that critical value."""
    n, weight = 3_000, 0.5
    each = unit_variance(COMPLETION, NINETY, ANY, weight)
    alpha = 1 - stats.norm.cdf(stats.norm.ppf(0.975) * np.sqrt(OVERSHOOT))
    sd = np.sqrt(each)
    single = normal_power_het(0.02, n, alpha, std_null=sd, std_alternative=sd, alternative="larger")
    crossed = chance_to_pass(COMPLETION, NINETY, ANY, weight, n)
    assert single < crossed < single + 0.1, "some cross before and are below at the end"


def test_the_planned_number_is_near_the_fixed_samples() -> None:
    """For power 0.8 the price of looking at any time is under a fifth of what a single look needs (statsmodels)."""
    needed = least_max_n(COMPLETION, NINETY, ANY, 0.5, 0.8)
    single = samplesize_proportions_2indep_onetail(-0.02, 0.9, 0.8, alpha=0.05, alternative="smaller")
    assert needed is not None
    assert 1 < needed / single < 1.2


def test_no_number_shows_an_equal_candidate_to_be_better() -> None:
    """With a margin of 0 there is no max_n that would do."""
    assert least_max_n(COMPLETION.model_copy(update={"margin": 0.0}), NINETY, ANY, 0.5, 0.8) is None


def test_the_chance_of_an_equally_fast_one_is_near_the_simulated_one() -> None:
    """At half and at all of what is planned, within 12 points of the real e-process on drawn counts."""
    gate = Gate(metric=LATENCY, margin=0.2, margin_kind="rel", max_n=2_000)
    over = float(stats.norm.sf(stats.norm.ppf(0.95) + np.log(1.2) / 0.8))
    rng = np.random.default_rng(4)
    counts = rng.binomial(50, over, (400, 40)).cumsum(axis=1)
    for until in (20, 40):
        passed = 0
        for row in counts[:, :until]:
            seen = [
                Exceedances(10**9, 100.0, 120.0, Sample.proportion(50 * (n + 1), int(k))) for n, k in enumerate(row)
            ]
            passed += any(gates.evaluate(gate, Evidence((one,))).verdict == "pass" for one in seen)
        assert passed / 400 == pytest.approx(chance_to_pass(gate, Signal(1.0), ANY, 1e-9, 50 * until), abs=0.12)


def test_bursts_of_a_healthy_candidate_are_no_more_than_said() -> None:
    """Calls drawn one by one, the window asked at each failure: the bound is above, and not far above."""
    policy, rng, hours = BurstPolicy(min_n=3, share=0.3, window_s=60.0), np.random.default_rng(5), 3_000
    times = np.sort(rng.uniform(0, 3600 * hours, rng.poisson(60 * hours)))
    failed = rng.random(len(times)) < 0.1
    alarms = 0
    for now in np.flatnonzero(failed):
        since = np.searchsorted(times, times[now] - 60)
        window = Burst(0, 0, int(now + 1 - since), int(failed[since : now + 1].sum()))
        alarms += burst_reason(window, policy) is not None
    said = burst_alarms(policy, 60, 0.1, hours, compared=False)
    assert alarms == pytest.approx(said, rel=0.15)
    assert burst_alarms(policy, 60, 0.1, hours, compared=True) <= policy.alpha * 60 * 0.1 * hours

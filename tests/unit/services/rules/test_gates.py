"""Gates: four outcomes, nothing passes on missing data, bounds against textbook formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import test_proportions_2indep as two_proportions

from ratchet.schemas.rollout_policy import Gate
from ratchet.services.rules.gates import (
    Exceedances,
    Judged,
    Means,
    Sample,
    evaluate,
    log_e_faster,
    log_e_slower,
    threshold,
)

COMPLETION = Gate(metric="completion", margin=0.02)
ERRORS = Gate(metric="error_rate", margin=0.005)
LATENCY = Gate(metric="latency_p95", margin=0.2, margin_kind="rel")


def means(n_old: float, k_old: float, n_new: float, k_new: float) -> Means:
    """Counts of both arms."""
    return Means(Sample.proportion(n_old, k_old), Sample.proportion(n_new, k_new))


def latency(n_old: int, n_new: int, exceeded: int, p95: float = 100.0) -> Exceedances:
    """Exceedances of the threshold that LATENCY sets over a stable P95 of 100 ms."""
    return Exceedances(n_old, p95, n_new, p95, threshold(LATENCY, p95), exceeded)


@pytest.mark.parametrize(
    "evidence",
    [
        None,
        Means(None, None),
        Means(Sample.proportion(5_000, 4_500), None),
        Means(None, Sample.proportion(5_000, 5_000)),
        means(0, 0, 5_000, 5_000),
        means(5_000, 0, 0, 0),
    ],
)
def test_missing_data_is_inconclusive(evidence: Means | None) -> None:
    """An arm without observations neither passes nor fails, however good the other looks."""
    assert evaluate(COMPLETION, evidence).verdict == "inconclusive"


def test_answers_without_a_verdict_never_help_a_candidate() -> None:
    """A pass that hangs on answers the check abstained on is none; an equal share in both arms costs nothing."""

    def asked(stable: float, candidate: float) -> str:
        arms = Sample(9_000, 8_100, 8_100, stable), Sample(9_000, 8_400, 8_400, candidate)
        return evaluate(COMPLETION, Means(*arms)).verdict

    assert asked(0, 0) == asked(900, 900) == asked(900, 0) == asked(0, 20) == "pass"
    assert asked(0, 900) == asked(900, 3_000) == "inconclusive"
    worse = Means(Sample(9_000, 8_100, 8_100), Sample(9_000, 7_000, 7_000, 900))
    assert evaluate(COMPLETION, worse).verdict == "fail"
    told = evaluate(COMPLETION, Means(Sample(9_000, 8_100, 8_100), Sample(9_000, 8_400, 8_400, 1_000))).reason
    assert told.endswith("no verdict: 10.0% of the candidate's answers, 0.0% of stable's")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 6_000.0])
def test_senseless_figures_are_an_error(bad: float) -> None:
    """NaN, infinity, negative counts and more successes than trials are errors, never a verdict."""
    assert evaluate(COMPLETION, means(5_000, 4_500, 5_000, bad)).verdict == "error"
    assert evaluate(COMPLETION, means(5_000, bad, 5_000, 4_500)).verdict == "error"


def test_latency_errors_and_missing_data() -> None:
    """The latency gate treats NaN and impossible counts as errors and missing arms as inconclusive."""
    assert evaluate(LATENCY, latency(5_000, 5_000, 6_000)).verdict == "error"
    assert evaluate(LATENCY, latency(5_000, 5_000, 0, math.nan)).verdict == "error"
    assert evaluate(LATENCY, latency(0, 5_000, 0)).verdict == "inconclusive"
    assert evaluate(LATENCY, latency(5_000, 0, 0)).verdict == "inconclusive"
    assert evaluate(LATENCY, Exceedances(5_000, None, 5_000, None, None, 0)).verdict == "inconclusive"


def test_too_few_observations_wait_and_say_so() -> None:
    """Below min_n in either arm even overwhelming figures wait, with the count in the reason."""
    result = evaluate(COMPLETION, means(50_000, 45_000, 99, 0))
    assert (result.verdict, result.reason) == (
        "inconclusive",
        "completion: waiting for n: 99 of 100 in the smaller arm",
    )


def test_better_passes_and_worse_fails_in_the_metrics_own_direction() -> None:
    """More completions pass and fewer fail; for errors it is the other way round."""
    assert evaluate(COMPLETION, means(9_000, 8_100, 9_000, 8_400)).verdict == "pass"
    assert evaluate(COMPLETION, means(9_000, 8_100, 9_000, 7_000)).verdict == "fail"
    assert evaluate(ERRORS, means(9_000, 90, 9_000, 40)).verdict == "pass"
    assert evaluate(ERRORS, means(9_000, 90, 9_000, 400)).verdict == "fail"
    assert evaluate(LATENCY, latency(9_000, 9_000, 200)).verdict == "pass"
    assert evaluate(LATENCY, latency(9_000, 9_000, 1_200)).verdict == "fail"


def test_sharing_alpha_makes_failing_harder_and_passing_no_easier() -> None:
    """A gate that shares alpha with others for aborts needs more proof of harm, and the same of health."""
    harmful, healthy = means(700, 630, 700, 560), means(9_000, 8_100, 9_000, 8_150)
    assert [evaluate(COMPLETION, harmful, share).verdict for share in (1, 1_000)] == ["fail", "inconclusive"]
    assert evaluate(COMPLETION, healthy, 1).low == evaluate(COMPLETION, healthy, 1_000).low


def test_bounds_are_wider_than_a_single_look_and_centred_on_the_difference() -> None:
    """Validity at every look costs width against a fixed-sample interval, by less than three times."""
    result = evaluate(COMPLETION, means(4_000, 3_600, 1_500, 1_350))
    single = two_proportions(1_350, 1_500, 3_600, 4_000, compare="diff", method="wald")
    z = stats.norm.ppf(0.95) * math.sqrt(single.variance)
    assert result.difference == pytest.approx(0.0)
    assert result.low is not None
    assert 1.2 * z < -result.low < 3 * z


def test_a_pass_is_significant_for_statsmodels_too() -> None:
    """Whatever passes or fails here, a single-look non-inferiority test confirms."""
    for k_new in range(1_200, 1_500, 10):
        result = evaluate(COMPLETION, means(4_000, 3_600, 1_500, k_new))
        upper = two_proportions(k_new, 1_500, 3_600, 4_000, value=-0.02, compare="diff", alternative="larger").pvalue
        assert result.verdict != "pass" or upper < 0.05
        assert result.verdict != "fail" or upper > 0.95


def test_variance_does_not_collapse_when_all_agree() -> None:
    """Twenty perfect answers prove little: no bound tighter than what a binomial tail allows."""
    result = evaluate(COMPLETION.model_copy(update={"min_n": 1}), means(20, 20, 20, 20))
    exact = stats.beta.ppf(0.05, 20, 1) - 1  # Clopper-Pearson's one-sided lower bound of 20 of 20, minus 1
    assert result.verdict == "inconclusive"
    assert result.low is not None
    assert result.low < exact


def test_weighted_scores_are_compared_like_rates() -> None:
    """Judge scores between 0 and 1 go by mean and variance; a fractional effective n is fine."""
    gate = Gate(metric="judge_score", margin=0.05)
    old, new = Sample(812.5, 812.5 * 0.7, 812.5 * 0.53), Sample(640.25, 640.25 * 0.72, 640.25 * 0.56)
    assert evaluate(gate, Means(old, new)).verdict == "pass"
    assert evaluate(gate, Means(new, Sample(640.25, 640.25 * 0.5, 640.25 * 0.3))).verdict == "fail"


def test_an_untrusted_judge_decides_nothing() -> None:
    """What would pass or fail is inconclusive by an advisory judge; figures that make no sense stay an error."""
    gate = Gate(metric="judge_score", margin=0.05)
    old = Sample(812.5, 812.5 * 0.7, 812.5 * 0.53)
    for new in (Sample(640.25, 640.25 * 0.72, 640.25 * 0.56), Sample(640.25, 640.25 * 0.5, 640.25 * 0.3)):
        result = evaluate(gate, Judged(Means(old, new), "j, advisory: 3 of 50 labels", trusted=False))
        assert result.verdict == "inconclusive"
        assert result.reason.endswith("judged by j, advisory: 3 of 50 labels")
        trusted = evaluate(gate, Judged(Means(old, new), "j, trusted: agreement 90%", trusted=True))
        assert trusted.verdict == evaluate(gate, Means(old, new)).verdict
    assert evaluate(gate, Judged(Means(old, Sample(1, 2, 3)), "j", trusted=False)).verdict == "error"


def test_e_values_are_mixtures_of_likelihood_ratios() -> None:
    """Each e-value has mean 1 under its null (exactly 5% exceed), summed over the binomial."""
    n = 40
    weights = [float(stats.binom.pmf(k, n, 0.05)) for k in range(n + 1)]
    for log_e in (log_e_faster, log_e_slower):
        assert math.fsum(w * math.exp(log_e(n, k)) for k, w in enumerate(weights)) == pytest.approx(1.0)


def test_relative_margin_moves_with_the_stable_arm() -> None:
    """With margin_kind rel the reported margin is a share of the stable arm's value."""
    gate = Gate(metric="error_rate", margin=0.5, margin_kind="rel")
    assert evaluate(gate, means(9_000, 900, 9_000, 900)).margin == pytest.approx(0.05)
    assert evaluate(LATENCY, latency(9_000, 9_000, 100)).margin == pytest.approx(20.0)


counts = st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)).map(sorted)


@given(old=counts, new=counts, share=st.integers(1, 8), margin=st.sampled_from([0.0, 0.005, 0.02, 0.3]))
def test_any_counts_give_an_ordered_verdict(old: list[int], new: list[int], share: int, margin: float) -> None:
    """For all counts: low <= difference <= high, and the verdict agrees with the bounds."""
    for metric in ("completion", "error_rate"):
        result = evaluate(Gate(metric=metric, margin=margin), means(old[1], old[0], new[1], new[0]), share)
        if result.low is None or result.high is None or result.difference is None:
            assert result.verdict == "inconclusive"
            assert min(old[1], new[1]) < 100
            continue
        assert result.low <= result.difference <= result.high
        if metric == "completion":
            assert (result.verdict == "pass") == (result.low > -margin)
            assert (result.verdict == "fail") == (result.high < -margin)
        else:
            assert (result.verdict == "pass") == (result.high < margin)
            assert (result.verdict == "fail") == (result.low > margin)

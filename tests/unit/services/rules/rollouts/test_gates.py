"""Gates: four outcomes, nothing passes on missing data, bounds against textbook formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import test_proportions_2indep as two_proportions

from ratchet.schemas.rollout_events import GateResult
from ratchet.schemas.rollout_policy import Gate
from ratchet.services.rules.rollouts import gates
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Means, Paired, Sample, Stratum, threshold
from ratchet.services.rules.rollouts.gates import used_up
from ratchet.services.rules.rollouts.sequential import log_e_faster, log_e_slower, pass_radius

COMPLETION = Gate(metric="completion", margin=0.02, max_n=9_000)
ERRORS = Gate(metric="error_rate", margin=0.005, max_n=9_000)
LATENCY = Gate(metric="latency_p95", margin=0.2, margin_kind="rel", max_n=9_000)


def evaluate(gate: Gate, seen: Stratum | None, share: int = 1) -> GateResult:
    """One gate on one stage."""
    return gates.evaluate(gate, None if seen is None else Evidence((seen,)), share)


def means(n_old: float, k_old: float, n_new: float, k_new: float) -> Means:
    """Counts of both arms."""
    return Means(Sample.proportion(n_old, k_old), Sample.proportion(n_new, k_new))


def latency(n_old: int, n_new: int, exceeded: int, p95: float = 100.0) -> Exceedances:
    """Exceedances of the threshold that LATENCY sets over a stable P95 of 100 ms."""
    return Exceedances(n_old, p95, threshold(LATENCY, p95), Sample.proportion(n_new, exceeded), p95)


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
    assert told.endswith("within the margin but for the 10.0% of answers that have no verdict")


@pytest.mark.parametrize(("n", "repeats", "over"), [(9_100, 1, True), (9_100, 4, False), (36_400, 4, True)])
def test_the_planned_number_counts_independent_observations(n: int, repeats: int, over: bool) -> None:
    """Requests of users who repeat themselves use max_n up as slowly as they inform, in every kind of gate."""

    def arm(total: float) -> Sample:
        mean = total / n
        return Sample(n, total, total, users=n // repeats, mean_variance=mean * (1 - mean) / n * repeats)

    rate = evaluate(COMPLETION, Means(arm(0.9 * n), arm(0.882 * n)))
    pairs = Sample(n, -0.018 * n, 0.1 * n, users=n // repeats, mean_variance=(0.1 - 0.018**2) / n * repeats)
    paired = evaluate(COMPLETION, Paired(pairs, arm(0.9 * n), arm(0.882 * n)))
    slow = evaluate(LATENCY, Exceedances(n, 100.0, 120.0, arm(0.05 * n)))
    for gate, result in ((COMPLETION, rate), (COMPLETION, paired), (LATENCY, slow)):
        assert result.verdict == "inconclusive"
        assert result.progress == pytest.approx(min(n / repeats / 9_000, 1))
        assert used_up(gate, result) is over


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
    assert evaluate(LATENCY, Exceedances(5_000, None, None, Sample.proportion(5_000, 0))).verdict == "inconclusive"


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
    result = evaluate(COMPLETION.model_copy(update={"max_n": 1_500}), means(4_000, 3_600, 1_500, 1_350))
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
        result = gates.evaluate(gate, Evidence((Means(old, new),), "j, advisory: 3 of 50 labels", trusted=False))
        assert result.verdict == "inconclusive"
        assert result.reason.endswith("judged by j, advisory: 3 of 50 labels")
        trusted = gates.evaluate(gate, Evidence((Means(old, new),), "j, trusted: agreement 90%", trusted=True))
        assert trusted.verdict == evaluate(gate, Means(old, new)).verdict
    nonsense = Evidence((Means(old, Sample(1, 2, 3)),), "j", trusted=False)
    assert gates.evaluate(gate, nonsense).verdict == "error"


def test_e_values_are_mixtures_of_likelihood_ratios() -> None:
    """Each e-value has mean 1 under its null (exactly 5% exceed), summed over the binomial."""
    n = 40
    weights = [float(stats.binom.pmf(k, n, 0.05)) for k in range(n + 1)]
    for log_e in (log_e_faster, log_e_slower):
        assert math.fsum(w * math.exp(log_e(n, k)) for k, w in enumerate(weights)) == pytest.approx(1.0)


def test_relative_margin_moves_with_the_stable_arm() -> None:
    """With margin_kind rel the reported margin is a share of the stable arm's value."""
    gate = Gate(metric="error_rate", margin=0.5, margin_kind="rel", max_n=9_000)
    assert evaluate(gate, means(9_000, 900, 9_000, 900)).margin == pytest.approx(0.05)
    assert evaluate(LATENCY, latency(9_000, 9_000, 100)).margin == pytest.approx(20.0)


counts = st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)).map(sorted)


@given(old=counts, new=counts, share=st.integers(1, 8), margin=st.sampled_from([0.0, 0.005, 0.02, 0.3]))
def test_any_counts_give_an_ordered_verdict(old: list[int], new: list[int], share: int, margin: float) -> None:
    """For all counts: low <= difference <= high, and the verdict agrees with the bounds."""
    for metric in ("completion", "error_rate"):
        result = evaluate(Gate(metric=metric, margin=margin, max_n=5_000), means(old[1], old[0], new[1], new[0]), share)
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


def test_one_user_is_no_sample() -> None:
    """A thousand requests of nine users wait; of ten users they count, for less where users differ from each other."""
    old = Sample(1_000, 900, 900, users=400, mean_variance=0.09 / 1_000)
    few, ten = Sample(1_000, 940, 940, users=9), Sample(1_000, 940, 940, users=10, mean_variance=0.0564 / 1_000)
    assert evaluate(COMPLETION, Means(old, few)).reason == "completion: waiting for users: 9 of 10 in the smaller arm"
    wide = Sample(1_000, 940, 940, users=10, mean_variance=0.0564 / 1_000 * 16)
    plain, clustered = (evaluate(COMPLETION, Means(old, one)) for one in (ten, wide))
    assert plain.low is not None
    assert clustered.low is not None
    assert clustered.low < 2 * plain.low < 0


def test_stages_are_compared_within_themselves() -> None:
    """Simpson's paradox: equal in each stage, with other hours and another mix of arms, is equal in all."""
    morning = means(9_500, 9_025, 500, 475)
    night = means(2_000, 1_400, 2_000, 1_400)
    result = gates.evaluate(COMPLETION, Evidence((morning, night)))
    assert result.difference == pytest.approx(0.0)
    pooled = (475 + 1_400) / 2_500 - (9_025 + 1_400) / 11_500
    assert pooled < -0.15
    assert result.candidate.n == 2_500


def test_harm_that_only_the_last_stage_shows_is_not_diluted_by_the_stages_before() -> None:
    """Three good thousands do not hide that everything went wrong once the load was real."""
    good, bad = means(20_000, 18_000, 3_000, 2_730), means(800, 720, 800, 600)
    assert gates.evaluate(COMPLETION, Evidence((good, bad)), 4).verdict == "fail"
    assert gates.evaluate(COMPLETION, Evidence((good, means(800, 720, 800, 716))), 4).verdict != "fail"


def test_the_last_look_is_at_max_n() -> None:
    """Beyond it nothing passes any more, however good, and the gate says that its observations are used up."""
    gate = Gate(metric="completion", margin=0.02, max_n=1_000)
    late = evaluate(gate, means(5_000, 4_500, 1_060, 1_030))
    assert evaluate(gate, means(5_000, 4_500, 1_040, 1_010)).verdict == "pass"
    assert (late.verdict, used_up(gate, late)) == ("inconclusive", True)
    assert late.reason.endswith("max_n 1000 is used up")
    assert not used_up(gate, evaluate(gate, means(5_000, 4_500, 990, 880)))


def test_the_same_prompts_answered_by_both_say_more_than_two_samples() -> None:
    """Where hard prompts are hard for both, differences vary little: what two samples leave open, pairs decide."""
    n, both = 1_500, 750
    arms = Sample.proportion(n, both), Sample.proportion(n, both + 6)
    apart = evaluate(COMPLETION, Means(*arms))
    pairs = evaluate(COMPLETION, Paired(Sample(n, 6, 30), *arms))
    assert (apart.verdict, pairs.verdict) == ("inconclusive", "pass")
    worse = evaluate(COMPLETION, Paired(Sample(n, -200, 260), arms[0], Sample.proportion(n, both - 200)))
    assert worse.verdict == "fail"
    assert evaluate(COMPLETION, Paired(Sample(n, 900, 400), *arms)).verdict == "error"


def test_a_judges_comparisons_are_held_against_even() -> None:
    """Half a point for a win: as many wins as losses are within five points, mostly losses are not."""
    gate = Gate(metric="win_rate", margin=0.05)
    assert evaluate(gate, Paired(Sample(1_900, 0.0, 300.0))).verdict == "pass"
    assert evaluate(gate, Paired(Sample(1_900, -300.0, 400.0))).verdict == "fail"
    assert evaluate(gate, Paired(Sample(1_900, 0.0, 300.0))).stable.n == 1_900


def test_dollars_and_characters_go_by_a_share_of_the_stable_arms() -> None:
    """Costs of a thousandth of a dollar are not drowned in a smoothing made for shares."""
    gate = Gate(metric="cost", margin=0.1, margin_kind="rel")
    old, same = Sample(4_000, 4.0, 0.0044), Sample(1_500, 1.5, 0.00165)
    dear = Sample(1_500, 2.1, 0.0032)
    assert evaluate(gate, Means(old, same)).verdict == "pass"
    assert evaluate(gate, Means(old, dear)).verdict == "fail"
    assert evaluate(gate, Means(old, same)).margin == pytest.approx(0.0001)


def test_the_bound_for_passing_is_the_reflection_principles() -> None:
    """A Brownian motion up to the planned time crosses it with probability alpha: 2(1 - Phi(b / sqrt(T)))."""
    planned, alpha = 400.0, 0.05
    b = pass_radius(100.0, planned, alpha) * 100.0
    assert 2 * stats.norm.sf(b / math.sqrt(planned * 1.05)) == pytest.approx(alpha)

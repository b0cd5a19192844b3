"""Simulated rollouts: the traffic is what it says, the rules are the real ones, a seed repeats the figures."""

import math

import numpy as np
import pytest
from scipy import stats

from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.rules.rollouts.evidence import Sample
from ratchet.services.rules.rollouts.simulated_traffic import Population
from ratchet.services.rules.rollouts.simulation import look_hours, simulate, time_enough
from ratchet.services.rules.rollouts.summary import summarise
from ratchet.services.rules.rollouts.task_traffic import Measured, candidates, traffic_of
from ratchet.services.rules.rollouts.traffic import LATENCY, P95_MS, Signal, Traffic

COMPLETION = Gate(metric="completion", margin=0.1, max_n=400, min_n=50)
POLICY = RolloutPolicy(
    stages=[
        Stage(name="shadow", mirror_bp=2_000, min_duration_s=3_600, gates=[]),
        Stage(name="20%", weight_bp=2_000, min_duration_s=3_600),
        Stage(name="100%", weight_bp=10_000, min_duration_s=3_600),
    ],
    gates=[COMPLETION],
)
OUTCOMES = Traffic(1_000, {"completion": Signal(0.9, mirrored=False)})
ROWS = np.arange(400)


def seen(
    traffic: Traffic, difference: dict[str, float], weight: float, looks: int = 4, mirror: float = 0.0
) -> Population:
    """Some hours of traffic in one stage of many rollouts."""
    made = Population(traffic, difference, 1.2, 1, len(ROWS), np.random.default_rng(1))
    for look in range(looks):
        made.ask(look, 1.0, 0, weight, mirror, ROWS)
        made.arrive(look)
    return made


def samples(made: Population, name: str, weight: float, candidate: bool) -> list[Sample]:
    """One arm of each rollout."""
    arm = made.arm(ROWS, weight)
    found = made.sums(name, 0, ROWS, arm if candidate else ~arm)
    return [one for one in found if one is not None]


@pytest.mark.parametrize("users", [None, 300])
def test_both_arms_have_the_rates_that_were_asked_for(users: int | None) -> None:
    """With users or without, the split, the rates and the share that says anything are the ones of the traffic."""
    traffic = Traffic(2_000, {"satisfaction": Signal(0.8, share=0.1)}, users=users, activity_sd=0.5, icc=0.1)
    made = seen(traffic, {"satisfaction": -0.05}, 0.2)
    for candidate, rate, share in ((False, 0.8, 0.8), (True, 0.75, 0.2)):
        found = samples(made, "satisfaction", 0.2, candidate)
        assert np.mean([one.n for one in found]) == pytest.approx(8_000 * 0.1 * share, rel=0.03)
        assert sum(one.total for one in found) / sum(one.n for one in found) == pytest.approx(rate, abs=0.01)
    keys = made.keys(0, 0.2, ROWS)
    assert keys[1].sum() / (keys[0].sum() + keys[1].sum()) == pytest.approx(0.2, abs=0.01)


def test_the_variance_by_users_is_the_variance_that_means_have() -> None:
    """Each sample's own estimate agrees with how its mean varies from rollout to rollout, far above one without."""
    traffic = Traffic(2_000, {"completion": Signal(0.9)}, users=400, activity_sd=1.0, icc=0.1)
    found = samples(seen(traffic, {}, 0.5), "completion", 0.5, True)
    between = np.var([one.mean for one in found])
    assert between == pytest.approx(np.mean([one.mean_variance or 0 for one in found]), rel=0.25)
    assert np.mean([one.design_effect for one in found]) > 3


def test_mirrored_prompts_are_pairs_of_both_arms() -> None:
    """Differences of pairs have the true mean, a smaller variance than two arms have, and arms that add up."""
    traffic = Traffic(5_000, {"completion": Signal(0.9)}, agreement=0.8)
    made = seen(traffic, {"completion": -0.04}, 0.0, mirror=0.1)
    pairs = [one for one in made.sums("completion", 0, ROWS, None) if one is not None]
    n, total, squares = (sum(getattr(one, name) for one in pairs) for name in ("n", "total", "squares"))
    assert total / n == pytest.approx(-0.04, abs=0.003)
    assert squares / n < 0.9 * 0.1 + 0.86 * 0.14
    arms = made.arms_of_pairs("completion", 0, ROWS)
    assert sum(old.total for old, _ in arms) / n == pytest.approx(0.9, abs=0.003)
    assert sum(new.total for _, new in arms) / n == pytest.approx(0.86, abs=0.003)


def test_latency_is_what_raw_lognormal_latencies_give() -> None:
    """The P95 as seen and the exceedances of the bound over it vary as those of drawn latencies do."""
    n_old, n_new, ratio, sd = 1_900, 400, 1.1, 0.8
    made = seen(Traffic((n_old + n_new) / 4, {LATENCY: Signal(1.0)}), {LATENCY: ratio - 1}, n_new / (n_old + n_new))
    found = made.over(0, ROWS, n_new / (n_old + n_new))
    shares = [new.mean for _, new, _ in found if new is not None]
    thresholds = [1.2 * p95 for _, _, p95 in found]
    rng = np.random.default_rng(2)
    old = np.exp(sd * (rng.normal(size=(400, n_old)) - stats.norm.ppf(0.95))) * P95_MS
    new = np.exp(sd * (rng.normal(size=(400, n_new)) - stats.norm.ppf(0.95))) * P95_MS * ratio
    limits = 1.2 * np.quantile(old, 0.95, axis=1, method="inverted_cdf")
    raw = (new > limits[:, None]).mean(axis=1)
    assert np.mean(thresholds) == pytest.approx(limits.mean(), rel=0.01)
    assert np.std(thresholds) == pytest.approx(limits.std(), rel=0.15)
    assert np.mean(shares) == pytest.approx(raw.mean(), rel=0.06)
    assert np.std(shares) == pytest.approx(raw.std(), rel=0.15)


def test_late_labels_count_for_the_stage_of_their_request() -> None:
    """What is told two looks later is not there before, and is then."""
    made = Population(
        Traffic(1_000, {"completion": Signal(0.9, delay_h=2)}), {}, 1.2, 2, len(ROWS), np.random.default_rng(1)
    )
    made.ask(0, 1.0, 0, 0.5, 0.0, ROWS)
    made.ask(1, 1.0, 1, 0.5, 0.0, ROWS)
    assert made.arrive(1) == {}
    assert made.arrive(2) == {"completion": {0}}
    assert made.seen["completion"].n[0].sum() == made.calls[0].sum() > 0
    assert made.seen["completion"].n[1].sum() == 0


def test_rollouts_go_through_the_real_rules_and_repeat_by_seed() -> None:
    """Equal ones are promoted through every stage, bad ones aborted with users, and a seed gives the same again."""
    equal = list(simulate(POLICY, OUTCOMES, {}, 60, 3))
    assert equal == list(simulate(POLICY, OUTCOMES, {}, 60, 3))
    assert equal != list(simulate(POLICY, OUTCOMES, {}, 60, 4))
    got = summarise(equal, ["completion"])
    assert got.promoted.value > 0.9
    assert list(got.stages) == ["shadow", "20%", "100%"]
    assert list(got.gates) == ["20%"], "an outcome is not seen in shadow, and is proved once"
    assert got.requests is not None
    assert got.requests.value > 400
    bad = summarise(list(simulate(POLICY, OUTCOMES, {"completion": -0.4}, 60, 3)), ["completion"])
    assert bad.aborted.value == 1
    assert bad.harm_requests is not None
    assert bad.harm_requests.value < 400


@pytest.mark.parametrize("users", [None, 400])
@pytest.mark.parametrize(
    ("metric", "margin"),
    [
        ("completion", 0.1), ("error_rate", 0.05), ("satisfaction", 0.1), ("latency_p95", 0.5), ("judge_score", 0.1),
        ("win_rate", 0.1), ("cost", 0.3), ("length", 0.3), ("refusal_rate", 0.05), ("check:polite", 0.1),
    ],
)  # fmt: skip
def test_every_metric_can_be_simulated(metric: str, margin: float, users: int | None) -> None:
    """An equal candidate is never aborted and mostly passes; one four margins worse goes, by its own gate."""
    kind = "rel" if metric in ("cost", "length", "latency_p95") else "abs"
    gate = {"metric": metric, "margin": margin, "margin_kind": kind, "min_n": 50, "max_n": 2_000}
    first = {"name": "shadow", "mirror_bp": 5_000} if metric == "win_rate" else {"name": "50%", "weight_bp": 5_000}
    last = {"name": "100%", "weight_bp": 10_000, "gates": []}
    task = TaskPolicy.model_validate({"rollout": {"stages": [first, last], "gates": [gate]}})
    traffic = traffic_of(task, Measured(requests_per_hour=2_000, users=users))
    asked = candidates(task, traffic)
    equal, _, worse = (summarise(list(simulate(task.rollout, traffic, asked[name], 20, 7)), [metric]) for name in asked)
    assert equal.aborted.value == 0
    assert equal.gates[first["name"]][metric].share >= 0.8
    assert worse.aborted.value >= 0.9


def test_a_candidate_at_its_margin_is_paused_by_the_gate_that_it_meets() -> None:
    """Most of them use up the gate's observations, and the summary names the gate."""
    got = summarise(list(simulate(POLICY, OUTCOMES, {"completion": -0.1}, 100, 5)), ["completion"])
    assert got.promoted.low < 0.05
    assert got.stuck["completion"] >= 90


def test_a_rehearsal_has_its_looks_and_its_time_scaled() -> None:
    """A time scale of a thousandth makes both a thousandth."""
    scaled = POLICY.model_copy(update={"time_scale": 0.001})
    assert time_enough(scaled) == pytest.approx(time_enough(POLICY) / 1_000)
    assert look_hours(scaled) >= 0.125 / 1_000
    assert math.isclose(look_hours(POLICY), max(0.125, time_enough(POLICY) / 2_000))

"""How often the gates are wrong, by seeded simulation of whole stages with a look after every batch."""

import numpy as np
import pytest

from ratchet.schemas.rollout_policy import Gate, Metric
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Means, Sample, threshold
from ratchet.services.rules.rollouts.gates import evaluate, used_up

ROLLOUTS = 800
LATENCY_ROLLOUTS = 300
SHARE = 4


def allowed(rollouts: int) -> float:
    """5% plus two and a half standard errors of a simulated rate of 5%."""
    return float(0.05 + 2.5 * (0.05 * 0.95 / rollouts) ** 0.5)


def decided(
    gate: Gate, p_old: float, p_new: float, arms: float, batch: int, looks: int = 20, seed: int = 1
) -> tuple[float, float, float]:
    """Share of stages that pass and that fail, and the mean candidate requests until then.

    ``arms``: requests of the stable arm for each of the candidate's.
    """
    rng = np.random.default_rng(seed)
    size = (ROLLOUTS, looks)
    new = rng.binomial(batch, p_new, size).cumsum(axis=1)
    old = rng.binomial(int(batch * arms), p_old, size).cumsum(axis=1)
    verdicts, requests = [], []
    for rollout in range(ROLLOUTS):
        for look in range(looks):
            n = batch * (look + 1)
            stable = Sample.proportion(int(batch * arms) * (look + 1), int(old[rollout, look]))
            seen = Evidence((Means(stable, Sample.proportion(n, int(new[rollout, look]))),))
            result = evaluate(gate, seen, SHARE)
            if result.verdict != "inconclusive" or used_up(gate, result):
                break
        verdicts.append(result.verdict)
        requests.append(n)
    return verdicts.count("pass") / ROLLOUTS, verdicts.count("fail") / ROLLOUTS, float(np.mean(requests))


@pytest.mark.parametrize(
    ("metric", "margin", "p_old", "p_new", "arms", "batch"),
    [
        ("completion", 0.02, 0.9, 0.88, 19, 150),
        ("completion", 0.02, 0.9, 0.88, 1, 150),
        ("completion", 0.02, 0.999, 0.979, 19, 150),
        ("completion", 0.02, 1.0, 0.98, 1, 50),
        ("error_rate", 0.005, 0.01, 0.015, 19, 300),
        ("error_rate", 0.005, 0.0, 0.005, 1, 100),
        ("satisfaction", 0.05, 0.8, 0.75, 1, 150),
    ],
)
def test_a_candidate_at_the_margin_is_rarely_promoted(
    metric: Metric, margin: float, p_old: float, p_new: float, arms: float, batch: int
) -> None:
    """At the margin, near 0, near 1, with even and uneven arms: one stage passes at most 5%."""
    passed, _, _ = decided(Gate(metric=metric, margin=margin, min_n=50, max_n=batch * 20), p_old, p_new, arms, batch)
    assert passed <= allowed(ROLLOUTS)


@pytest.mark.parametrize(("p_old", "p_new"), [(0.99, 0.79), (0.9, 0.7), (0.3, 0.1)])
def test_the_demos_margins_hold_too(p_old: float, p_new: float) -> None:
    """With a margin of 20 points and looks every three requests a candidate 20 points down passes at most 5%."""
    gate = Gate(metric="completion", margin=0.2, min_n=8, max_n=60)
    passed, _, _ = decided(gate, p_old, p_new, arms=1, batch=3)
    assert passed <= allowed(ROLLOUTS)


def test_an_equal_candidate_is_promoted_and_rarely_aborted() -> None:
    """An equal model passes nineteen times in twenty within 4,000 requests and is aborted at most once in a hundred."""
    passed, failed, requests = decided(Gate(metric="completion", margin=0.02), 0.9, 0.9, arms=19, batch=100, looks=40)
    assert passed >= 0.95
    assert failed <= 0.01
    assert requests <= 2_400


def test_harm_is_proved_soon() -> None:
    """A candidate eight points down is aborted every time, within 600 of its requests on average."""
    passed, failed, requests = decided(Gate(metric="completion", margin=0.02), 0.9, 0.82, arms=19, batch=50, looks=60)
    assert passed == 0
    assert failed >= 0.99
    assert requests <= 600


def latency(ratio: float, arms: int, looks: int = 20, batch: int = 150, seed: int = 2) -> tuple[float, float]:
    """Share of stages whose latency gate passes and fails, lognormal latencies (sigma 0.8), P95s in ``ratio``."""
    gate = Gate(metric="latency_p95", margin=0.2, margin_kind="rel")
    rng = np.random.default_rng(seed)
    verdicts = []
    for _ in range(LATENCY_ROLLOUTS):
        old = rng.lognormal(5, 0.8, batch * looks * arms)
        new = rng.lognormal(5, 0.8, batch * looks) * ratio
        for n in range(batch, batch * looks + 1, batch):
            p95 = float(np.quantile(old[: n * arms], 0.95, method="inverted_cdf"))
            limit = threshold(gate, p95)
            over = Sample.proportion(n, int((new[:n] > limit).sum()))
            seen = Exceedances(n * arms, p95, limit, over, float(np.quantile(new[:n], 0.95)))
            if (verdict := evaluate(gate, Evidence((seen,)), SHARE).verdict) != "inconclusive":
                break
        verdicts.append(verdict)
    return verdicts.count("pass") / LATENCY_ROLLOUTS, verdicts.count("fail") / LATENCY_ROLLOUTS


@pytest.mark.parametrize("arms", [1, 4])
def test_a_candidate_slower_by_the_margin_rarely_passes(arms: int) -> None:
    """At exactly P95 x 1.2 the latency gate passes at most 5%, its own estimated threshold included."""
    assert latency(1.2, arms)[0] <= allowed(LATENCY_ROLLOUTS)


def test_latency_equal_passes_and_much_slower_fails() -> None:
    """An equally fast candidate passes four times in five and never fails; one 60% slower always fails."""
    passed, failed = latency(1.0, arms=1)
    assert passed >= 0.8
    assert failed <= 0.01
    assert latency(1.6, arms=1) == (0.0, 1.0)

"""Gates before the shadow stage: each outcome, and how often each rule passes a candidate exactly at its bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.evaluation_policy import EvaluationGate
from ratchet.trainers.rules.acceptance import advised, answer, rejection
from ratchet.trainers.rules.measures import Observed, Value


def observed(values: Sequence[float | Value | None]) -> Observed:
    """Prompts in order; None has no verdict."""
    named = {f"{n:06}": one for n, one in enumerate(values)}
    known: dict[str, Value] = {
        name: one if isinstance(one, tuple) else (float(one),) for name, one in named.items() if one is not None
    }
    return Observed(known, frozenset(named.keys() - known.keys()))


def gate(**more: Any) -> EvaluationGate:
    """A gate on completion, unless it says otherwise."""
    return EvaluationGate.model_validate({"metric": "completion"} | more)


GOOD, HALF = [1.0] * 95 + [0.0] * 5, [1.0, 0.0] * 50
SLOW = [100.0] * 80 + [150.0] * 20


@pytest.mark.parametrize(
    ("asked", "candidate", "stable", "verdict", "told"),
    [
        (gate(floor=0.8), GOOD, None, "pass", "0.95 of n = 100, 90% interval 0.9008"),
        (gate(floor=0.8), HALF, None, "fail", "floor 0.8"),
        (gate(floor=0.9), [1.0] * 92 + [0.0] * 8, None, "inconclusive", "0.92 of n = 100"),
        (gate(floor=0.8), GOOD[:10], None, "inconclusive", "10 prompts with a verdict; the gate asks for 50"),
        (gate(margin=0.05), GOOD, GOOD, "pass", "difference +0"),
        (gate(margin=0.05), HALF, GOOD, "fail", "0.5 against stable's 0.95 on n = 100 prompts"),
        (gate(margin=0.02), GOOD, GOOD[::-1], "inconclusive", "margin 0.02"),
        (gate(margin=0.1, margin_kind="rel"), GOOD, GOOD, "pass", "margin 0.09"),
        (gate(margin=0.05), GOOD, None, "inconclusive", "not measured of the stable"),
        (gate(metric="over_refusal", ceiling=0.2), [0.0] * 95 + [1.0] * 5, None, "pass", "ceiling 0.2"),
        (gate(metric="over_refusal", margin=0.05), [1.0] * 50 + [0.0] * 50, [0.0] * 100, "fail", "difference +0.5"),
        (gate(metric="over_refusal", margin=0.05), [0.0] * 100, [0.0] * 100, "pass", "difference +0"),
        (gate(metric="latency_p95", margin=0.2, margin_kind="rel"), SLOW, SLOW, "pass", "margin 30"),
        (gate(metric="latency_p95", ceiling=120), SLOW, None, "fail", "ceiling 120"),
        (gate(metric="throughput", floor=10), [(20.0, 1.0)] * 60, None, "pass", "20 of n = 60"),
        (gate(metric="win_rate", floor=0.5), [1.0] * 80 + [0.5] * 20, None, "pass", "0.9 of n = 100"),
        (gate(metric="rouge_l", margin=0.1, margin_kind="rel"), [0.5] * 60, [0.0] * 60, "error", "relative margin"),
        (gate(metric="rouge_l", floor=0.1), [float("nan")] * 60, None, "error", "finite"),
    ],
)
def test_each_outcome(
    asked: EvaluationGate, candidate: list[Any], stable: list[Any] | None, verdict: str, told: str
) -> None:
    """Shown to be within, shown to be beyond, neither, not measured, senseless: each with its figures."""
    said = answer(asked, observed(candidate), observed(stable) if stable is not None else None, seed=0)
    assert (said.verdict, told in said.reason) == (verdict, True), said


def test_what_could_not_be_measured_is_an_error_and_what_was_not_is_inconclusive() -> None:
    """A failure of measuring is told as such; nothing at all never passes."""
    failed = answer(gate(floor=0.1), Observed(error="out of memory"), None, 0)
    assert (failed.verdict, failed.reason) == ("error", "measuring the candidate failed: out of memory")
    assert answer(gate(floor=0.1), None, None, 0).verdict == "inconclusive"
    assert answer(gate(margin=0.5), observed(GOOD), Observed(error="away"), 0).verdict == "error"


def test_what_has_no_verdict_counts_against_the_candidate() -> None:
    """A pass must hold with every prompt that lacks a verdict gone wrong, on either side."""
    many: list[Any] = [1.0] * 95 + [None] * 60
    floor = answer(gate(floor=0.8), observed(many), None, 0)
    assert (floor.verdict, "60 more prompts have no verdict" in floor.reason) == ("inconclusive", True)
    margin = answer(gate(margin=0.1), observed(many), observed([1.0] * 155), 0)
    assert (margin.verdict, "60 more" in margin.reason) == ("inconclusive", True)
    # where neither has a verdict the prompt says nothing of the two
    assert answer(gate(margin=0.1), observed(many), observed(many), 0).verdict == "pass"


def test_every_critical_gate_must_pass() -> None:
    """One critical gate without a pass rejects, with its figures; one that is not critical, or a dry run, does not."""
    good, bad = (answer(gate(floor=0.8), observed(values), None, 0) for values in (GOOD, HALF))
    aside = answer(gate(floor=0.8, critical=False), observed(HALF), None, 0)
    assert rejection([]) is None
    assert rejection([good, aside]) is None
    assert "completion: fail: 0.5 of n = 100" in str(rejection([good, bad, aside]))
    assert rejection([bad], dry_run=True) is None
    few = answer(gate(floor=0.1), observed(GOOD[:3]), None, 0)
    assert "inconclusive" in str(rejection([few]))


def test_an_advisory_judge_decides_nothing() -> None:
    """What an uncalibrated judge saw is shown as inconclusive; an error of its stays an error."""
    won = answer(gate(metric="win_rate", floor=0.5), observed([1.0] * 100), None, 0)
    said = advised(won, "0 of 50 labels")
    assert (won.verdict, said.verdict) == ("pass", "inconclusive")
    assert said.reason.endswith("its judge is advisory: 0 of 50 labels")
    assert advised(answer(won_gate, Observed(error="away"), None, 0), "why").verdict == "error"


won_gate = gate(metric="win_rate", floor=0.5)


@given(st.lists(st.sampled_from([0.0, 1.0, None]), min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_a_pass_and_a_fail_are_never_both_possible(values: list[float | None], bound: float) -> None:
    """A floor that is passed is passed at every lower one, and one that is failed is failed at every higher one."""
    said = answer(gate(floor=bound, min_n=1), observed(values), None, 0)
    lower = answer(gate(floor=bound / 2, min_n=1), observed(values), None, 0)
    higher = answer(gate(floor=(1 + bound) / 2, min_n=1), observed(values), None, 0)
    if said.verdict == "pass":
        assert lower.verdict == "pass"
    if said.verdict == "fail":
        assert higher.verdict == "fail"


Draw = Callable[[np.random.Generator, int], tuple[Any, Any]]


def _rates(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    """Stable right in 85%, the candidate in 80%, both on the same prompts."""
    kind = rng.choice(4, size=n, p=[0.75, 0.10, 0.05, 0.10])  # both, stable alone, candidate alone, neither
    return (np.isin(kind, [0, 2])).astype(float), (np.isin(kind, [0, 1])).astype(float)


def _means(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    hard = rng.beta(2, 2, n)
    return hard + rng.normal(0, 0.15, n) - 0.05, hard + rng.normal(0, 0.15, n)


def _slower(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    return rng.lognormal(5, 0.5, n) * 1.2, rng.lognormal(5, 0.5, n)


def _floor(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    return (rng.random(n) < 0.8).astype(float), None


@pytest.mark.parametrize(
    ("asked", "draw", "rounds"),
    [
        (gate(margin=0.05), _rates, 1000),
        (gate(floor=0.8), _floor, 1000),
        (gate(metric="rouge_l", margin=0.05), _means, 60),
        (gate(metric="latency_p50", margin=0.2, margin_kind="rel"), _slower, 60),
    ],
)
def test_a_candidate_exactly_at_its_bound_seldom_passes(asked: EvaluationGate, draw: Draw, rounds: int) -> None:
    """Of candidates that are just as bad as allowed 5% pass: here not more than that and four standard errors."""
    rng = np.random.default_rng(7)
    passed = 0
    for seed in range(rounds):
        candidate, stable = draw(rng, 100)
        other = None if stable is None else observed(stable.tolist())
        passed += answer(asked, observed(candidate.tolist()), other, seed).verdict == "pass"
    assert passed / rounds <= 0.05 + 4 * (0.05 * 0.95 / rounds) ** 0.5

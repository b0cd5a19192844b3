"""The best of several candidates: how often the choice is wrong, how many copies it takes, and that gates follow it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.errors import RolloutError
from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import BestArmPolicy, RolloutPolicy
from ratchet.services.rules.rollouts.best_arm import FULL, choose, even
from ratchet.services.rules.rollouts.deciding import decide
from ratchet.services.rules.rollouts.evidence import Sample, StageEvidence
from ratchet.services.rules.rollouts.transitions import apply, begin, join, promote
from ratchet.services.rules.routing import choose as route

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
NAMES = [f"support@v{n}-{n}{n}{n}{n}{n}{n}{n}{n}" for n in (1, 2, 3, 4)]
POLICY = BestArmPolicy(candidates=4, margin=0.05)


def chosen(rates: list[float], seed: int, policy: BestArmPolicy = POLICY, most: int = 12_000) -> tuple[str | None, int]:
    """Give copies by the shares, 20 at a time and a look after each, until one is chosen; and how many it took."""
    rng = np.random.default_rng(seed)
    names = NAMES[: len(rates)]
    shares, n, k = even(names), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for copies in range(20, most, 20):
        drawn = rng.multinomial(20, [shares.get(name, 0) / FULL for name in names])
        for name, rate, m in zip(names, rates, drawn, strict=True):
            n[name] += int(m)
            k[name] += int(rng.binomial(m, rate))
        choice = choose({name: Sample.proportion(n[name], k[name]) if n[name] else None for name in names}, policy)
        if choice.best:
            return choice.best, copies
        shares = dict(choice.shares)
    return None, most


def test_a_choice_is_rarely_wrong() -> None:
    """A look after every 20 copies, one arm six points better (the margin is five): another is chosen in 5% at most."""
    ends = [chosen([0.72, 0.78, 0.72], seed)[0] for seed in range(120)]
    assert sum(end is not None for end in ends) >= 100
    assert sum(end not in (None, NAMES[1]) for end in ends) <= 0.05 * len(ends)


def test_copies_go_where_the_choice_is_open() -> None:
    """With two clearly bad candidates the open question is decided with fewer copies than even shares would take."""
    adaptive = [chosen([0.9, 0.4, 0.4, 0.8], seed)[1] for seed in range(30)]
    wide = [chosen([0.9, 0.8], seed)[1] for seed in range(30)]
    assert np.mean(adaptive) < 2 * np.mean(wide)


def test_equals_are_chosen_by_the_margin() -> None:
    """None is better: any is within the margin of the best, so the question ends all the same."""
    assert all(chosen([0.8, 0.8], seed, most=30_000)[0] for seed in range(10))


@given(
    st.lists(st.none() | st.tuples(st.integers(1, 5_000), st.floats(-1, 1)), min_size=2, max_size=4),
    st.integers(1, 200),
)
def test_shares_add_up_and_missing_data_chooses_nobody(seen: list[tuple[int, float] | None], min_n: int) -> None:
    """Whatever was seen: 10,000 shares in all; no choice before every candidate has its copies."""
    arms = {
        name: None if one is None else Sample(one[0], one[0] * one[1], one[0] * max(one[1] ** 2, abs(one[1])))
        for name, one in zip(NAMES, seen, strict=False)
    }
    choice = choose(arms, BestArmPolicy(candidates=4, min_n=min_n))
    assert sum(choice.shares.values()) == FULL
    if any(one is None or one.n < min_n for one in arms.values()):
        assert choice.best is None
        assert set(choice.shares) == set(arms)


def event(n: int) -> str:
    """An id."""
    return derived_id(int(START.timestamp() * 1000), str(n))


def compared(policy: RolloutPolicy, *names: str) -> Rollout:
    """A rollout whose candidates are compared."""
    return begin("support", names[0], policy, None, START, event(1), event(2), others=names[1:])


def test_the_best_goes_on_to_the_gates_with_nothing_proved() -> None:
    """Chosen, its stage begins anew: the figures that chose it are flattering, and no gate sees them."""
    policy = RolloutPolicy(best_arm=POLICY)
    state = compared(policy, NAMES[2], NAMES[0])
    assert state.arms == {NAMES[2]: 5_000, NAMES[0]: 5_000}
    arms = {NAMES[2]: Sample.proportion(2_000, 1_000), NAMES[0]: Sample.proportion(2_000, 1_800)}
    now = START + timedelta(hours=2)
    decision = decide(state, StageEvidence(arms=arms, requests=4_000), policy, now)
    assert (decision.action, decision.best, decision.gates) == ("choose", NAMES[0], ())
    alone = apply(state, decision, policy, now, event(3))
    assert (alone.candidate, alone.arms, alone.stage, alone.stage_started_at) == (NAMES[0], {}, "shadow", now)
    assert alone.proved == []


def test_new_shares_are_published_now_and_then() -> None:
    """While the choice is open copies are dealt out anew, not at every look."""
    policy = RolloutPolicy(best_arm=POLICY)
    state = compared(policy, *NAMES[:3])
    arms = {name: Sample.proportion(300, k) for name, k in zip(NAMES, (240, 231, 30), strict=False)}
    early, later = (decide(state, StageEvidence(arms=arms), policy, START + timedelta(seconds=s)) for s in (299, 300))
    assert (early.action, later.action) == ("wait", "allocate")
    dealt = apply(state, later, policy, START + timedelta(seconds=300), event(3))
    assert dealt.arms == {NAMES[0]: 5_000, NAMES[1]: 5_000, NAMES[2]: 0}
    assert (dealt.stage_started_at, dealt.candidate) == (START, NAMES[0])


def test_a_newer_candidate_joins_and_a_person_decides_by_name() -> None:
    """Shares are even again; what is compared is not promoted past its comparison."""
    policy = RolloutPolicy(best_arm=POLICY)
    joined = join(begin("support", NAMES[0], policy, None, START, event(1), event(2)), NAMES[1], START, event(3))
    assert joined.arms == {NAMES[0]: 5_000, NAMES[1]: 5_000}
    assert join(joined, NAMES[2], START, event(4)).arms == even(NAMES[:3])
    with pytest.raises(RolloutError, match="2 candidates are compared"):
        promote(joined, policy, START, event(5), "ada", "sure", full=True)


def test_a_copy_goes_to_one_candidate_by_the_shares() -> None:
    """Two thousand requests: each copied to one of them, in proportion, and the same request always to the same."""
    table = compared(RolloutPolicy(best_arm=POLICY), *NAMES[:2]).model_copy(
        update={"mirror_bp": FULL, "arms": {NAMES[0]: 7_000, NAMES[1]: 3_000}}
    )
    copies = [route(table, key=str(n), inference_id=str(n)).mirror for n in range(2_000)]
    assert copies == [route(table, key="x", inference_id=str(n)).mirror for n in range(2_000)]
    assert set(copies) == set(NAMES[:2])
    assert 1_300 < copies.count(NAMES[0]) < 1_500


def test_only_a_first_stage_without_users_compares() -> None:
    """A policy that would let users see a comparison is refused."""
    with pytest.raises(ValueError, match="shows users its candidate"):
        RolloutPolicy.model_validate({"best_arm": {"candidates": 2}, "stages": [{"name": "all", "weight_bp": 10_000}]})
    with pytest.raises(ValueError, match="allowed: a share or a score"):
        BestArmPolicy(metric="latency_p95")

"""A judge's budget of a day, its buckets a minute, and the waits between tries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.judge_limits import (
    BURST,
    BudgetSpent,
    DayBudget,
    Limits,
    TokenBucket,
    retry_after_s,
    retry_wait_s,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 500)), min_size=1, max_size=40),
)
def test_no_window_gets_more_than_its_share(per_minute: int, asked: list[tuple[float, float]]) -> None:
    """Whoever waits as told never uses more, over any time, than the burst, the rate and one request's worth."""
    bucket, now, used = TokenBucket(per_minute), 1_000.0, []
    for pause_s, amount in asked:
        now += pause_s
        used.append((now + bucket.take(amount, now), amount))
    for first, (begin, _) in enumerate(used):
        inside = [(at, amount) for at, amount in used[first:] if at >= begin]
        for end, _ in inside:
            amounts = [amount for at, amount in inside if at <= end]
            allowed = max(1.0, per_minute * BURST) + (end - begin) / 60 * per_minute + max(amounts)
            assert sum(amounts) <= allowed * (1 + 1e-9) + 1e-6


def test_a_full_bucket_lets_go_at_once_and_fills_again() -> None:
    """Within the burst nobody waits; beyond it each waits for its turn; what is not used comes back."""
    bucket = TokenBucket(60)
    assert [bucket.take(5, 0.0), bucket.take(5, 0.0)] == [0.0, 0.0]
    assert bucket.take(5, 0.0) == pytest.approx(5.0)
    bucket.give_back(5)
    assert bucket.take(5, 5.0) == pytest.approx(0.0)
    assert bucket.take(1_000, 1e9) == 0.0, "more than ever fits goes when the bucket is full"


def test_a_day_ends_at_midnight_utc() -> None:
    """A budget that is spent refuses with what was spent and when it goes on, and goes on then."""
    budget = DayBudget(Limits(tokens_per_day=100))
    budget.hold(NOON, 60, 0)
    with pytest.raises(BudgetSpent, match=r"60 of 100 tokens\); it goes on at 2026-11-02T00:00Z"):
        budget.hold(NOON, 60, 0)
    budget.settle(NOON, (60, 0), (30, 0))
    budget.hold(NOON, 60, 0)
    budget.settle(NOON, (60, 0), (70, 0))
    assert budget.problem(NOON, 1, 0)
    assert budget.problem(NOON - timedelta(days=1), 1, 0), "a clock that jumps back does not give the day again"
    assert budget.problem(NOON + timedelta(hours=12), 100, 0) is None


def test_dollars_and_what_was_spent_elsewhere() -> None:
    """The larger of what this process counted and what is stored counts, in tokens and in dollars."""
    budget = DayBudget(Limits(usd_per_day=1.0, tokens_per_day=1_000))
    budget.saw(NOON, 10, 0.9)
    budget.saw(NOON, 500, 0.2)
    assert budget.problem(NOON, 499, 0.09) is None
    assert "0.9 of 1.0 USD" in (budget.problem(NOON, 1, 0.2) or "")
    assert "500 of 1,000 tokens" in (budget.problem(NOON, 501, 0.0) or "")


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 300)), max_size=30))
def test_a_budget_is_passed_by_no_more_than_estimates_were_short(asked: list[tuple[int, int]]) -> None:
    """Questions at once hold their estimates, so together they exceed the day by what they exceeded those."""
    budget = DayBudget(Limits(tokens_per_day=500))
    held: list[tuple[int, int]] = []
    for estimate, spent in asked:
        if budget.problem(NOON, estimate, 0) is None:
            budget.hold(NOON, estimate, 0)
            held.append((estimate, spent))
    for estimate, spent in held:
        budget.settle(NOON, (estimate, 0), (spent, 0))
    assert budget.held_tokens == 0
    assert budget.tokens <= 500 + sum(max(0, spent - estimate) for estimate, spent in held)


@given(st.integers(1, 50), st.floats(0, 1), st.none() | st.floats(0, 1e4))
def test_waits(attempt: int, jitter: float, asked_for: float | None) -> None:
    """A wait is never under what the endpoint asked for, or the back-off, and at most half longer."""
    wait_s = retry_wait_s(attempt, asked_for, jitter)
    base = min(30.0, 0.5 * 2.0 ** min(attempt - 1, 30)) if asked_for is None else asked_for
    assert base <= wait_s <= base * 1.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2.0), ("0.5", 0.5), (None, None), ("soon", None), ("-1", None), ("nan", None), ("inf", None)],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds are understood; anything else is no wish."""
    assert retry_after_s(header) == seconds

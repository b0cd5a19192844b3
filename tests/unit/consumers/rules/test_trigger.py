from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.trigger import NOT_LEARNED, Asking, Spent, TriggerState, asking, decide
from ratchet.schemas.retraining_policy import RetrainingPolicy

NOW = datetime(2026, 11, 1, tzinfo=UTC)
POLICY = RetrainingPolicy(min_new_pairs=100, cooldown_s=3600, daily_cap=2, alert_min_pairs=20)
ALERT = Asking("a1", "quality fell", "judge_score")


def test_enough_new_pairs_train() -> None:
    """The first training needs the minimum; the next one as many again since the last."""
    assert decide(TriggerState(100), POLICY, NOW).train
    assert decide(TriggerState(250, trained_pairs=150), POLICY, NOW).reason == "100 new train pairs (at least 100)"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TriggerState(99), "too_few_pairs"),
        (TriggerState(500, trained_pairs=401), "too_few_pairs"),
        (TriggerState(500, running="job"), "running"),
        (TriggerState(500, last_request_at=NOW - timedelta(minutes=59)), "cooldown"),
        (TriggerState(500, last_request_at=NOW - timedelta(hours=2), requests_24h=2), "daily_cap"),
    ],
)
def test_what_stands_against_training(state: TriggerState, code: str) -> None:
    """Each condition alone holds training back and is named."""
    decision = decide(state, POLICY, NOW)
    assert (decision.train, decision.code) == (False, code)


def test_an_alert_makes_fewer_pairs_enough() -> None:
    """While an alert asks its own minimum counts and the reason names it; never more pairs than without it."""
    assert decide(TriggerState(19, alert=ALERT), POLICY, NOW).code == "too_few_pairs"
    decision = decide(TriggerState(20, alert=ALERT), POLICY, NOW)
    assert decision.train
    assert decision.reason == "20 new train pairs (at least 20); alert a1 asks: quality fell"
    few = RetrainingPolicy(min_new_pairs=5, alert_min_pairs=50)
    assert decide(TriggerState(5, alert=ALERT), few, NOW).train


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (TriggerState(50, running="job", alert=ALERT), "running"),
        (TriggerState(50, last_request_at=NOW - timedelta(minutes=59), alert=ALERT), "cooldown"),
        (TriggerState(50, last_request_at=NOW - timedelta(hours=2), requests_24h=2, alert=ALERT), "daily_cap"),
    ],
)
def test_an_alert_lifts_neither_cooldown_nor_cap(state: TriggerState, code: str) -> None:
    """What else stands against training stands against it with an alert too, and the refusal names the alert."""
    decision = decide(state, POLICY, NOW)
    assert (decision.train, decision.code) == (False, code)
    assert "a1" in decision.reason


def test_the_gravest_unanswered_alert_that_training_mends_asks() -> None:
    """Answered alerts and those of what no training mends are passed over."""
    slow = Asking("a0", "slow", "latency")
    other = Asking("a2", "longer answers", "answer_length")
    assert asking([slow, ALERT, other], []) == ALERT
    assert asking([slow, ALERT, other], ["a1"]) == other
    assert asking([Asking(name, name, name) for name in NOT_LEARNED], []) is None
    assert asking([], ["a1"]) is None


SCHEDULED = POLICY.model_copy(update={"schedule": "0 22 * * *", "schedule_min_pairs": 10})
ASKED = datetime(2026, 10, 31, 22, tzinfo=UTC)


def test_a_scheduled_time_makes_fewer_pairs_enough_until_something_came_of_it() -> None:
    """Two hours after it: ten pairs train; a request since then, of any kind, has answered it."""
    decision = decide(TriggerState(10), SCHEDULED, NOW)
    assert (decision.train, decision.cause, decision.scheduled_at) == (True, "schedule", ASKED)
    assert decision.reason == "10 new train pairs (at least 10); scheduled for 2026-10-31T22:00:00+00:00"
    assert decide(TriggerState(9), SCHEDULED, NOW).reason.startswith("9 new train pairs; 10 are needed; scheduled for")
    answered = decide(TriggerState(10, last_request_at=ASKED), SCHEDULED, NOW)
    assert (answered.code, answered.cause, answered.scheduled_at) == ("too_few_pairs", "pairs", None)
    before = decide(TriggerState(10, last_request_at=ASKED - timedelta(hours=1)), SCHEDULED, NOW)
    assert before.train
    assert decide(TriggerState(10), SCHEDULED, NOW + timedelta(hours=5)).code == "too_few_pairs", "the grace is over"


def test_an_alert_goes_before_the_schedule() -> None:
    """Both are named; the alert is the cause."""
    decision = decide(TriggerState(20, alert=ALERT), SCHEDULED, NOW)
    assert (decision.train, decision.cause) == (True, "drift")
    assert "scheduled for" in decision.reason
    assert "alert a1 asks" in decision.reason


@pytest.mark.parametrize("alert", [None, ALERT])
def test_quiet_hours_hold_everything_back(alert: Asking | None) -> None:
    """Neither pairs nor an alert train in them; the reason says when they end."""
    quiet = RetrainingPolicy.model_validate(
        POLICY.model_dump() | {"quiet_hours": [{"start": "22:00", "end": "06:00"}], "timezone": "Europe/Berlin"}
    )
    decision = decide(TriggerState(500, alert=alert), quiet, NOW)
    assert decision.code == "quiet_hours"
    assert "end at 2026-11-01T06:00:00+01:00" in decision.reason
    assert decide(TriggerState(500, alert=alert), quiet, NOW + timedelta(hours=6)).train


@pytest.mark.parametrize(
    ("budget", "spent", "said"),
    [
        ({"hours": 10}, Spent(hours=9, next_hours=1), ""),
        ({"hours": 10}, Spent(hours=9.5, next_hours=1), "9.5 of the budget's 10 hours in 30 days and the next may"),
        ({"hours": 10}, Spent(hours=10), "10 of the budget's 10 hours"),
        ({"usd": 50}, Spent(hours=99, usd=49), ""),
        ({"usd": 50, "hours": 100}, Spent(hours=99, usd=49, next_usd=2), "49 of the budget's 50 dollars"),
    ],
)
def test_the_budget_stops_what_would_pass_it(budget: dict[str, float], spent: Spent, said: str) -> None:
    """What was spent and what the next one may take are held against each limit."""
    policy = RetrainingPolicy.model_validate(POLICY.model_dump() | {"budget": budget})
    decision = decide(TriggerState(500, spent=spent), policy, NOW)
    assert decision.train == (not said)
    assert decision.code == ("budget" if said else "train")
    assert said in decision.reason


def test_switched_off() -> None:
    """A task with retraining switched off never trains by itself."""
    assert decide(TriggerState(10_000), RetrainingPolicy(enabled=False), NOW).code == "disabled"


@given(
    st.integers(0, 1_000),
    st.integers(0, 1_000),
    st.one_of(st.none(), st.just("job")),
    st.one_of(st.none(), st.integers(0, 10_000)),
    st.integers(0, 4),
    st.sampled_from([None, ALERT]),
)
def test_trains_only_when_nothing_stands_against_it(
    pairs: int, trained: int, running: str | None, age_s: int | None, requests: int, alert: Asking | None
) -> None:
    """Training is decided exactly when every condition allows it."""
    last = None if age_s is None else NOW - timedelta(seconds=age_s)
    state = TriggerState(pairs, trained, running, last, requests, alert)
    allowed = (
        pairs - trained >= (20 if alert else 100)
        and running is None
        and (age_s is None or age_s >= 3600)
        and requests < 2
    )
    assert decide(state, POLICY, NOW).train == allowed

"""What recorded traffic says of a task, and what the controller says of its policy at the start."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ratchet.infra.settings import Settings
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.processes import warn_of_policies
from ratchet.services.rollout_plan import figures, findings
from ratchet.services.rules.rollouts.task_traffic import Measured

UNTIL = datetime(2026, 11, 29, 12, tzinfo=UTC)
ROW: dict[str, Any] = {
    "requests": 2_400, "first_at": UNTIL - timedelta(hours=24), "errors": 24, "timed": 2_376, "p50_ms": 100.0,
    "p95_ms": 373.0, "users": 2_400, "squares": 2_400, "thumbs": 240, "thumbs_up": 180.0, "outcomes": 99,
    "completed": 10.0, "delay_h": float("nan"), "checked": 0, "passed": 0.0,
}  # fmt: skip


def seen(by_check: bool = False, **changes: Any) -> Measured | None:
    """What a row of a week says."""
    return figures(ROW | changes, by_check, UNTIL - timedelta(days=7), UNTIL)


def test_what_was_recorded_counts_and_what_was_not_is_the_usual() -> None:
    """Hours count from the first request; too few outcomes say nothing; requests of nobody known are independent."""
    got, usual = seen(), Measured()
    assert got is not None
    assert (got.requests_per_hour, got.error_rate, got.satisfaction, got.feedback_share) == (100, 0.01, 0.75, 0.1)
    assert got.latency_sd == pytest.approx(0.8, abs=0.01)
    assert (got.users, got.completion, got.outcome_share, got.delay_h) == (None, usual.completion, 1.0, 0.0)
    told = seen(by_check=True, checked=1_200, passed=600.0, delay_h=2.5)
    assert told is not None
    assert (told.completion, told.outcome_share, told.delay_h) == (0.5, 0.5, 2.5)
    assert seen(requests=99) is None


def test_how_unevenly_users_ask() -> None:
    """Users who ask as often as chance has it are even; one who asks for half of all is not."""
    even, busy = seen(users=240, squares=240 * (10**2 + 10)), seen(users=241, squares=240 * 5**2 + 1_200**2)
    assert even is not None
    assert busy is not None
    assert even.activity_sd == 0
    assert busy.activity_sd > 1.5


def test_the_controller_warns_of_a_policy_that_cannot_decide(caplog: pytest.LogCaptureFixture) -> None:
    """Each finding is logged with its task, and a sound policy is not mentioned."""
    unsound = TaskPolicy.model_validate({"rollout": {"gates": [{"metric": "check:json", "margin": 0.02}]}})
    assert [one.severity for one in findings(unsound, None)] == ["error"]
    with caplog.at_level(logging.WARNING, "ratchet"):
        warn_of_policies(Settings(tasks={"sound": TaskPolicy(), "unsound": unsound}))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("task unsound: error: rollout.gates[check:json] = check:json: no such check")

"""Times at which a task may or may not train."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.schemas.explain import explain
from ratchet.schemas.retraining_policy import RetrainingPolicy, zone

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))


def at(hours: float, day: int = 0) -> datetime:
    """So many hours into Monday, or into a day after it."""
    return MONDAY + timedelta(days=day, hours=hours)


def test_a_scheduled_time_is_due_from_its_instant_until_its_grace_is_over() -> None:
    """Also in another time zone: Mondays at 3 in Berlin are 2 o'clock UTC in November."""
    weekly = RetrainingPolicy(schedule="0 3 * * 1", schedule_grace_s=3600)
    assert [weekly.due(at(hours)) for hours in (2.99, 3, 3.5, 4, 4.01)] == [None, at(3), at(3), at(3), None]
    berlin = RetrainingPolicy(schedule="0 3 * * mon", schedule_grace_s=3600, timezone="Europe/Berlin")
    assert berlin.due(at(2.5)) == at(2)
    assert RetrainingPolicy().due(at(3)) is None


def test_a_schedule_goes_on_over_a_change_of_the_clocks() -> None:
    """Half past two does not exist on the night in March; it comes at three then, once."""
    nightly = RetrainingPolicy(schedule="30 2 * * *", timezone="Europe/Berlin", schedule_grace_s=3600)
    night = datetime(2026, 3, 29, tzinfo=UTC)
    found = {nightly.due(night + timedelta(minutes=5 * step)) for step in range(48)}
    assert found == {None, night + timedelta(hours=1)}


@pytest.mark.parametrize(
    ("hours", "day", "until"),
    [
        (7.9, 0, None),
        (8, 0, at(18)),
        (17.9, 0, at(18)),
        (18, 0, None),
        (12, 5, None),
        (23, 4, at(6, 5)),
        (5.9, 5, at(6, 5)),
        (6, 5, None),
        (23, 5, None),
    ],
)
def test_quiet_hours_hold_on_their_days_and_over_midnight(hours: float, day: int, until: datetime | None) -> None:
    """Office hours from Monday to Friday, and Friday's night, which ends on Saturday."""
    office = {"start": "08:00", "end": "18:00", "days": ["mon", "tue", "wed", "thu", "fri"]}
    night = {"start": "22:00", "end": "06:00", "days": ["fri"]}
    policy = RetrainingPolicy.model_validate({"quiet_hours": [office, night]})
    assert policy.quiet_until(at(hours, day)) == until


def test_spans_that_touch_are_one_quiet() -> None:
    """What is said is when it really ends; a week of quiet without an end is no endless loop."""
    spans = [{"start": "08:00", "end": "12:00"}, {"start": "12:00", "end": "14:00"}, {"start": "13:00", "end": "15:00"}]
    assert RetrainingPolicy.model_validate({"quiet_hours": spans}).quiet_until(at(9)) == at(15)
    always = [{"start": "00:00", "end": "12:00"}, {"start": "12:00", "end": "00:00"}]
    ends = RetrainingPolicy.model_validate({"quiet_hours": always}).quiet_until(at(9))
    assert ends is not None
    assert ends > at(9)


@given(INSTANTS, st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns"]))
def test_quiet_ends_after_now_and_is_over_then(now: datetime, name: str) -> None:
    """At every instant of the year: the end lies ahead, and at the end it is quiet no more."""
    policy = RetrainingPolicy.model_validate({"quiet_hours": [{"start": "21:00", "end": "05:30"}], "timezone": name})
    until = policy.quiet_until(now)
    local = now.astimezone(zone(name))
    assert (until is not None) == (local.hour >= 21 or (local.hour, local.minute) < (5, 30))
    if until is not None:
        assert now < until <= now + timedelta(hours=10)
        assert policy.quiet_until(until) is None


@given(INSTANTS)
def test_a_due_time_lies_within_the_grace(now: datetime) -> None:
    """Never in the future, never older than the grace."""
    due = RetrainingPolicy(schedule="17 */5 * * *", schedule_grace_s=7200).due(now)
    assert due is None or timedelta(0) <= now - due <= timedelta(hours=2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"schedule": "every monday"}, "no cron expression"),
        ({"timezone": "Mars/Olympus"}, "no time zone here"),
        ({"timezone": "../etc/passwd"}, "no time zone here"),
        ({"quiet_hours": [{"start": "08:00", "end": "08:00"}]}, "two different times"),
        ({"quiet_hours": [{"start": "08:00", "end": "09:00", "days": []}]}, "at least 1 item"),
        ({"budget": {}}, "at least one of the two"),
        ({"budget": {"hours": 0}}, "greater than 0"),
    ],
)
def test_what_is_no_policy_is_named(wrong: dict[str, object], said: str) -> None:
    """The field and what is allowed are in the error."""
    with pytest.raises(ValidationError) as caught:
        RetrainingPolicy.model_validate(wrong)
    assert said in explain(caught.value)

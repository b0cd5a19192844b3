"""Gathering evidence leaves most of ClickHouse's time to others."""

from datetime import UTC, datetime, timedelta

from ratchet.services.controller.pace import Pace

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """An instant."""
    return START + timedelta(seconds=seconds)


def test_a_look_that_took_long_is_followed_by_three_times_as_long_a_rest() -> None:
    """Two seconds of questions, six of rest, of that task alone; a quick look rests hardly at all."""
    pace = Pace()
    assert pace.due("support", START)
    pace.took("support", START, at(2))
    assert [pace.due("support", at(seconds)) for seconds in (2, 7.9, 8)] == [False, False, True]
    assert pace.due("other", at(3))
    pace.took("support", at(8), at(8.01))
    assert pace.due("support", at(10))


def test_no_rest_is_longer_than_a_minute_and_a_clock_that_jumps_holds_nothing_up() -> None:
    """A burst is found a minute late at most; a clock that was set back stops no looking."""
    pace = Pace()
    pace.took("support", START, at(3_600))
    assert pace.due("support", at(3_661))
    assert pace.due("support", START)
    pace.took("support", at(100), at(50))
    assert pace.due("support", at(50))

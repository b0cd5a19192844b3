"""When bad messages are a flood."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.flood import HOUR_MS, FloodPolicy, Seen, Window, flood_alert, flooding, observe
from ratchet.infra.clock import new_id
from ratchet.schemas.events import DeadLetter

POLICY = FloodPolicy(share=0.5, minimum=100, window_s=60)


def window(*polls: Seen, policy: FloodPolicy = POLICY) -> Window:
    """The window after these polls."""
    seen: Window = ()
    for poll in polls:
        seen = observe(seen, poll, policy)
    return seen


def test_few_bad_messages_of_a_quiet_topic_are_no_flood() -> None:
    """All messages bad, but fewer than the minimum: dead-letter them."""
    assert flooding(window(Seen(0, 99, 99)), POLICY) is None


def test_many_bad_messages_below_the_share_are_no_flood() -> None:
    """Half of the messages may be bad, not more than half."""
    assert flooding(window(Seen(0, 2_000, 1_000)), POLICY) is None


def test_past_share_and_minimum_it_is_a_flood_with_its_figures() -> None:
    """The sentence says how many of how many, within what time, and what is allowed."""
    problem = flooding(window(Seen(0, 100, 60), Seen(30, 100, 50)), POLICY)
    assert problem == "110 of 200 messages within 60 s are no events (allowed share: 50%)"


def test_what_is_older_than_the_window_does_not_count() -> None:
    """Bad messages of more than a window ago are forgotten."""
    assert flooding(window(Seen(0, 100, 100), Seen(61, 50, 50)), POLICY) is None


@pytest.mark.parametrize("policy", [{"share": 1.0}, {"share": -0.1}, {"minimum": 0}, {"window_s": 0}])
def test_thresholds_that_mean_nothing_are_refused(policy: dict[str, float]) -> None:
    """A policy that could never or always be met is an error where it is written."""
    with pytest.raises(ValueError, match="allowed"):
        FloodPolicy(**policy)  # type: ignore[arg-type]


@given(st.integers(0, HOUR_MS - 1), st.integers(0, HOUR_MS - 1), st.integers(0, 5), st.text(max_size=300))
def test_a_restart_that_meets_another_message_of_the_flood_raises_the_same_alert(
    one_ms: int, other_ms: int, partition: int, reason: str
) -> None:
    """Its id depends on topic and hour alone, and another topic's flood is another alert."""
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    letter = DeadLetter(
        id=new_id(), at=noon + timedelta(milliseconds=one_ms), topic="ratchet.score", partition=0, offset=7,
        reason="not JSON", value_base64="",
    )  # fmt: skip
    later = letter.model_copy(
        update={"at": noon + timedelta(milliseconds=other_ms), "partition": partition, "reason": reason}
    )
    alert = flood_alert(letter, "so many", noon)
    assert alert.id == flood_alert(later, "so many more", noon + timedelta(minutes=5)).id
    assert alert.id != flood_alert(letter.model_copy(update={"topic": "ratchet.feedback"}), "so many", noon).id
    assert alert.id != flood_alert(letter.model_copy(update={"at": letter.at + timedelta(hours=1)}), "", noon).id


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 500), st.integers(0, 500)).map(lambda t: (t[0], t[1] + t[2], t[2])),
        max_size=400,
    )
)
def test_the_window_is_short_and_counts_what_is_recent(steps: list[tuple[float, int, int]]) -> None:
    """However many polls there were, the window has about a hundred entries and never counts a message twice."""
    now_s, polls = 0.0, []
    for step, total, bad in steps:
        now_s += step
        polls.append(Seen(now_s, total, bad))
    kept = window(*polls)
    assert len(kept) <= 102
    assert sum(poll.bad for poll in kept) <= sum(poll.bad for poll in polls)
    recent = [poll for poll in polls if poll.at_s > now_s - POLICY.window_s * 0.99]
    assert sum(poll.total for poll in kept) >= sum(poll.total for poll in recent)

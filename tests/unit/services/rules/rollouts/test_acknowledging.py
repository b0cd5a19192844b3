"""Who routes by which table: who holds up an advance, when a flip is over, and when an adapter is drained."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.rules.rollouts.acknowledging import Words, drained, flip, left_over, waiting_for
from ratchet.services.rules.rollouts.transitions import abort, begin

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
BAD = "support@v2-22222222"
ID = derived_id(int(START.timestamp() * 1000), "x")
TABLE = abort(begin("support", BAD, RolloutPolicy(), None, START, ID, ID), START, ID, "controller", "bad")


def at(seconds: float) -> datetime:
    """An instant after the decision."""
    return START + timedelta(seconds=seconds)


def said(name: str, seconds: float, version: int, since: float = 0.0, **others: object) -> Gateway:
    """A gateway's word so many seconds after the decision."""
    body = {
        "id": ID,
        "at": at(seconds),
        "gateway": name,
        "tables": {"support": version},
        "since": {"support": at(since)},
    }
    return Gateway.model_validate(body | others)


def words(*all_of_them: Gateway) -> Words:
    """By name."""
    return {word.gateway: word for word in all_of_them}


def test_an_advance_waits_for_a_gateway_that_has_not_the_table() -> None:
    """A live one for ever, a silent one for five minutes (it may be cut off), one that left not at all."""
    one, other = said("a", 10, TABLE.version), said("b", 10, TABLE.version - 1)
    assert waiting_for(words(one, other), TABLE, at(11)) == ("b",)
    assert waiting_for(words(one, other), TABLE, at(309)) == ("b",)
    assert waiting_for(words(one, other), TABLE, at(311)) == ()
    assert waiting_for(words(one, other.model_copy(update={"state": "left"})), TABLE, at(11)) == ()
    assert waiting_for({}, TABLE, at(11)) == ()


def test_an_edge_of_ones_own_counts_for_its_task_alone() -> None:
    """Another task's edge knows nothing of this table and holds up no advance, flip or unloading; its own edge does."""
    theirs = said("edge:billing:here:nginx", 5.1, 1).model_copy(
        update={"tables": {"billing": 1}, "since": {"billing": at(0)}}
    )
    ours = said("edge:support:here:nginx", 5.1, TABLE.version - 1)
    mine = said("edge:8080:5f3a9c", 5.1, TABLE.version - 1)  # a gateway of a host that is called so
    assert waiting_for(words(theirs, ours, mine), TABLE, at(6)) == (mine.gateway, ours.gateway)
    settled = said("edge:support:here:nginx", 5.1, TABLE.version, 0.1)
    assert flip(words(theirs, settled), TABLE, BAD, at(6)).over
    assert drained(BAD, words(theirs, settled), [TABLE], at(6))


def test_a_flip_is_over_when_every_live_gateway_has_spoken_after_it() -> None:
    """The acknowledgement itself counts no request that was being routed in that instant: the next word does."""
    now = at(6)
    acknowledged = said("a", 0.1, TABLE.version, 0.1, last_request={BAD: at(-1)})
    assert not flip(words(acknowledged), TABLE, BAD, at(0.2)).over
    settled = said("a", 5.1, TABLE.version, 0.1, last_request={BAD: at(0.08)})
    slow = said("b", 5.2, TABLE.version, 0.4, last_request={BAD: at(0.39)})
    done = flip(words(settled, slow), TABLE, BAD, now)
    assert (done.over, done.seconds, done.acknowledged, done.gateways) == (True, 0.39, 0.4, 2)
    behind = flip(words(settled, said("b", 5, TABLE.version - 1)), TABLE, BAD, now)
    assert (behind.over, behind.live, behind.seconds) == (False, ("b",), None)


def test_a_silent_gateway_is_named_and_a_flip_without_any_gateway_is_never_over() -> None:
    """It may serve by its last table; and where nobody speaks nothing is known."""
    settled = said("a", 50, TABLE.version, 0.1)
    stands = flip(words(settled, said("b", 1, TABLE.version - 1)), TABLE, BAD, at(51))
    assert (stands.over, stands.live, stands.silent) == (True, (), ("b",))
    assert not flip({}, TABLE, BAD, at(51)).over


def test_no_request_after_the_decision_is_no_time() -> None:
    """Never negative, and 0 where the adapter was asked last before the decision, or never."""
    for last in ({BAD: at(-3)}, {}):
        assert flip(words(said("a", 5, TABLE.version, 0.1, last_request=last)), TABLE, BAD, at(6)).seconds == 0.0


@pytest.mark.parametrize(
    ("word", "is_drained"),
    [
        (said("a", 5, TABLE.version, 0.1), True),
        (said("a", 5, TABLE.version, 0.1, in_flight={BAD: 1}), False),
        (said("a", 0.5, TABLE.version, 0.1), False),
        (said("a", 5, TABLE.version - 1), False),
        (said("a", 5, TABLE.version - 1, state="left"), True),
        (said("a", 5, 1, tables={"other": 3}), True),
    ],
)
def test_an_adapter_is_drained_when_nobody_can_ask_it(word: Gateway, is_drained: bool) -> None:
    """Every present gateway has the table, has spoken since, and has nothing of it in flight."""
    assert drained(BAD, words(word), [TABLE], at(6)) is is_drained


def test_what_left_its_table_goes_after_a_while_and_what_is_wanted_never() -> None:
    """Ten minutes unwanted and drained; wanted again it stays, in flight it stays."""
    once, idle = {BAD: START}, words(said("a", 599, TABLE.version, 0.1))
    assert left_over(once, [], idle, [TABLE], at(599), 600) == []
    assert left_over(once, [], words(said("a", 601, TABLE.version, 0.1)), [TABLE], at(601), 600) == [BAD]
    assert left_over(once, [BAD], words(said("a", 601, TABLE.version, 0.1)), [TABLE], at(601), 600) == []
    busy = words(said("a", 601, TABLE.version, 0.1, in_flight={BAD: 2}))
    assert left_over(once, [], busy, [TABLE], at(601), 600) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 400), st.integers(1, 4)), max_size=6),
    st.integers(0, 400),
)
def test_a_flip_that_is_over_has_no_live_gateway_without_it(seen: list[tuple[str, int, int]], seconds: int) -> None:
    """Whatever gateways say, and whenever: never over with a live one behind."""
    told = words(*(said(name, second, version) for name, second, version in sorted(seen, key=lambda one: one[1])))
    table: Rollout = TABLE.model_copy(update={"version": 3})
    stands = flip(told, table, BAD, at(seconds))
    assert not (stands.over and stands.live)
    assert (stands.seconds is not None) == stands.over

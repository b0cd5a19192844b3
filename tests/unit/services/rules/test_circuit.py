"""The circuit's states: what opens it, what closes it, and what it does not care about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.services.rules.circuit import (
    CLOSED,
    Circuit,
    Thresholds,
    badness,
    failed,
    given_up,
    hurried,
    sent,
    succeeded,
    takes,
)

LIMITS = Thresholds(failures=3, failure_share=0.6, minimum=10, window_s=30, cooldown_s=1, longest_cooldown_s=30)


def fail(circuit: Circuit, now: float, *, whole: bool = True, jitter: float = 0.0) -> Circuit:
    """Send a request that fails."""
    circuit = sent(circuit, now)
    return failed(circuit, circuit.period, now, LIMITS, whole=whole, jitter=jitter)


def answer(circuit: Circuit, now: float) -> Circuit:
    """Send a request that is answered."""
    circuit = sent(circuit, now)
    return succeeded(circuit, circuit.period, now, LIMITS)


def opened(at: float = 0.0) -> Circuit:
    """A circuit that was just opened by failures in a row."""
    circuit = CLOSED._replace(half_began=at)
    for _ in range(LIMITS.failures):
        circuit = fail(circuit, at)
    assert circuit.state == "open"
    return circuit


def test_failures_in_a_row_open_it_and_an_answer_begins_anew() -> None:
    """Two of three, an answer, two more: closed; the third in a row opens it for the cool-down."""
    circuit = answer(fail(fail(CLOSED, 0), 0), 0)
    circuit = fail(fail(circuit, 0), 0)
    assert circuit.state == "closed"
    circuit = fail(circuit, 0)
    assert (circuit.state, circuit.until) == ("open", 1.0)
    assert not takes(circuit, 0.9)
    assert takes(circuit, 1.0)


def test_one_adapters_500s_count_in_the_share_alone() -> None:
    """With every second answer a 500 the replica stays, however long; at six of ten it is left alone."""
    circuit = CLOSED
    for number in range(200):
        circuit = answer(fail(circuit, number, whole=False), number)
    assert circuit.state == "closed"
    for _ in range(20):
        circuit = fail(circuit, 200, whole=False)
    assert circuit.state == "open"


def test_the_share_says_nothing_of_few_requests_and_of_old_ones() -> None:
    """Nine 500s in the window are too few; the next one, a window later, does not meet them any more."""
    circuit = CLOSED
    for _ in range(9):
        circuit = fail(circuit, 0, whole=False)
    assert circuit.state == "closed"
    assert fail(circuit, 0, whole=False).state == "open"
    assert fail(circuit, 31, whole=False).state == "closed"


def test_one_trial_at_a_time() -> None:
    """A due trial takes one request; its answer closes the circuit with a clean record."""
    trial = sent(opened(), 1.0)
    assert trial.state == "half-open"
    assert not takes(trial, 100.0)
    closed = succeeded(trial, trial.period, 2.0, LIMITS)
    assert closed == Circuit(period=trial.period + 1, half_began=2.0)


@given(st.integers(1, 60), st.floats(0, 1))
def test_cooldowns_grow_up_to_the_longest(trials: int, jitter: float) -> None:
    """Each failed trial doubles the cool-down, less at most half of it by the jitter, never above the longest."""
    circuit, now = opened(), 1.0
    for number in range(1, trials + 1):
        circuit = fail(circuit, now, jitter=jitter)
        whole = min(30.0, 2.0**number)
        assert circuit.until - now == pytest.approx(whole * (1 - jitter / 2))
        now = circuit.until


def test_what_was_under_way_when_it_opened_changes_nothing() -> None:
    """A late answer does not close it, a late failure does not lengthen the cool-down, nor end the trial."""
    before = CLOSED.period
    circuit = opened()
    for later in (circuit, sent(circuit, 1.0)):
        assert succeeded(later, before, 1.0, LIMITS) == later
        assert failed(later, before, 1.0, LIMITS, whole=True, jitter=0) == later
        assert given_up(later, before, 1.0) == later


def test_a_request_sent_all_the_same_may_close_it() -> None:
    """Where every replica is open one is asked before its trial is due: an answer closes it, a failure is no news."""
    circuit = opened()
    assert fail(circuit, 0.5) == circuit
    assert answer(circuit, 0.5).state == "closed"


def test_a_trial_that_was_given_up_is_due_again_at_once() -> None:
    """The client left before the trial's end: no verdict, and no longer cool-down."""
    trial = sent(opened(), 1.0)
    again = given_up(trial, trial.period, 1.5)
    assert (again.state, again.trials_failed, takes(again, 1.5)) == ("open", 0, True)


def test_signs_of_life_hurry_the_trial_and_nothing_else() -> None:
    """A server that came back is tried now; a closed circuit and a trial under way stay as they are."""
    circuit = opened()
    assert takes(hurried(circuit, 0.2), 0.2)
    trial = sent(circuit, 1.0)
    assert hurried(trial, 1.0) == trial
    assert hurried(CLOSED, 1.0) == CLOSED


def test_the_least_bad_comes_first() -> None:
    """Closed and due ones, then one on trial, then the one whose trial is due soonest."""
    soon, later = opened(0.0), opened(5.0)
    trial = sent(soon, 1.0)
    assert sorted([later, trial, soon, CLOSED], key=lambda c: badness(c, 0.5)) == [CLOSED, trial, soon, later]


events = st.lists(st.tuples(st.sampled_from(["ok", "whole", "part", "left"]), st.floats(0, 5)), max_size=80)


@given(events, st.floats(0, 1))
def test_no_history_leaves_a_replica_out_for_ever(history: list[tuple[str, float]], jitter: float) -> None:
    """Whatever happened, within the longest cool-down a request is taken, and its answer closes the circuit."""
    circuit, now = CLOSED, 0.0
    for outcome, pause in history:
        now += pause
        if not takes(circuit, now):
            continue
        circuit = sent(circuit, now)
        if outcome == "ok":
            circuit = succeeded(circuit, circuit.period, now, LIMITS)
        elif outcome == "left":
            circuit = given_up(circuit, circuit.period, now)
        else:
            circuit = failed(circuit, circuit.period, now, LIMITS, whole=outcome == "whole", jitter=jitter)
        assert circuit.until <= now + LIMITS.longest_cooldown_s
    now += LIMITS.longest_cooldown_s
    assert takes(circuit, now)
    assert answer(circuit, now).state == "closed"

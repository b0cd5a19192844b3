"""When a replica is left alone, and when it is tried again: a circuit breaker as values. Pure.

closed → open after several failures in a row that are the replica's own, or when most of what it
was asked lately failed → half-open once a cool-down is over: one trial request → closed by its
success, open again for longer by its failure.

An outcome counts only in the state that its request was sent in (its ``period``): what was under
way when the circuit opened can neither close it nor make the cool-down longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal["closed", "open", "half-open"]
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a circuit opens and for how long.

    Args:
        failures: failures in a row that are the replica's own (no connection, a lost one, silence,
            503). Any answer in between begins the count anew.
        failure_share: of the requests of the last ``window_s`` seconds, the share that failed in any
            way, 500s of an adapter among them. Above a half, because an adapter that always fails
            and the fallback that then answers on the same replica make exactly that.
        minimum: requests in the window before the share says anything.
        window_s: seconds; half of it is forgotten at a time.
        cooldown_s: seconds until the first trial. It doubles with each trial that fails.
        longest_cooldown_s: the most seconds between two trials.
    """

    failures: int = 5
    failure_share: float = 0.6
    minimum: int = 10
    window_s: float = 30.0
    cooldown_s: float = 1.0
    longest_cooldown_s: float = 30.0


class Tally(NamedTuple):
    """Requests that came to an end, and how many of them failed."""

    total: int = 0
    failed: int = 0


NONE = Tally()


class Circuit(NamedTuple):
    """What is known of one replica; times are seconds of a clock that only grows.

    A tuple, because every request of every user makes a new one.
    """

    state: State = "closed"
    period: int = 0
    """Grows with every change of state."""
    in_a_row: int = 0
    older: Tally = NONE
    newer: Tally = NONE
    half_began: float = 0.0
    """When the window's newer half began."""
    trials_failed: int = 0
    """Since it was last closed."""
    until: float = 0.0
    """Open: when a trial is due."""


CLOSED = Circuit()


def takes(circuit: Circuit, now: float) -> bool:
    """Say whether requests may be sent: closed, or a trial is due and none is under way."""
    return circuit.state == "closed" or (circuit.state == "open" and now >= circuit.until)


def badness(circuit: Circuit, now: float) -> tuple[int, float]:
    """Order replicas, best first: those that take requests, one on trial, then by how soon a trial is due."""
    if takes(circuit, now):
        return 0, 0.0
    return (1, 0.0) if circuit.state == "half-open" else (2, circuit.until)


def sent(circuit: Circuit, now: float) -> Circuit:
    """Note that a request is sent; its outcome goes with the ``period`` of what this returns.

    A due trial begins with it. A request that is sent although no trial is due (every replica is
    open) leaves an open circuit open until it succeeds.
    """
    if circuit.state == "open" and now >= circuit.until:
        return _change(circuit, "half-open")
    return circuit


def succeeded(circuit: Circuit, period: int, now: float, thresholds: Thresholds) -> Circuit:
    """Note that the replica answered; what it refuses as wrong (400, 404) is an answer, too."""
    if period != circuit.period:
        return circuit
    if circuit.state != "closed":
        return Circuit(period=circuit.period + 1, half_began=now)
    return _count(circuit, 0, 0, now, thresholds)


def failed(circuit: Circuit, period: int, now: float, thresholds: Thresholds, *, whole: bool, jitter: float) -> Circuit:
    """Note that a request failed.

    Args:
        circuit: the state until now.
        period: the circuit's when the request was sent.
        now: the present instant.
        thresholds: when to open and for how long.
        whole: the replica as a whole is at fault (no connection, silence, 503), so that failures in
            a row count; False for what may be one adapter's (500): that only counts in the share.
        jitter: 0 to 1; takes up to a half off the cool-down, so that gateways do not try in step.
    """
    if period != circuit.period:
        return circuit
    if circuit.state == "half-open":
        return _open(circuit, circuit.trials_failed + 1, now, thresholds, jitter)
    if circuit.state == "open":
        return circuit
    counted = _count(circuit, 1, circuit.in_a_row + whole, now, thresholds)
    total, bad = (old + new for old, new in zip(counted.older, counted.newer, strict=True))
    by_share = total >= thresholds.minimum and bad >= thresholds.failure_share * total
    if by_share or counted.in_a_row >= thresholds.failures:
        return _open(counted, 0, now, thresholds, jitter)
    return counted


def given_up(circuit: Circuit, period: int, now: float) -> Circuit:
    """Note that a request ended without an outcome (the client left): after a trial the next one is due at once."""
    if period != circuit.period or circuit.state != "half-open":
        return circuit
    return _change(circuit, "open")._replace(until=now)


def hurried(circuit: Circuit, now: float) -> Circuit:
    """Make a trial due now: the replica was away and shows signs of life."""
    return circuit._replace(until=now) if circuit.state == "open" and circuit.until > now else circuit


def _change(circuit: Circuit, state: State) -> Circuit:
    return circuit._replace(state=state, period=circuit.period + 1)


def _open(circuit: Circuit, trials_failed: int, now: float, thresholds: Thresholds, jitter: float) -> Circuit:
    doubled = thresholds.cooldown_s * 2.0 ** min(trials_failed, _MOST_DOUBLINGS)
    cooldown = min(thresholds.longest_cooldown_s, doubled) * (1 - jitter / 2)
    return _change(circuit, "open")._replace(trials_failed=trials_failed, until=now + cooldown)


def _count(circuit: Circuit, failures: int, in_a_row: int, now: float, thresholds: Thresholds) -> Circuit:
    """Count one outcome in the newer half of the window, after forgetting what is too old."""
    half = thresholds.window_s / 2
    older, newer, began = circuit.older, circuit.newer, circuit.half_began
    if now - began >= half:
        older = newer if now - began < 2 * half else NONE
        newer, began = NONE, now
    counted = Tally(newer.total + 1, newer.failed + failures)
    return circuit._replace(in_a_row=in_a_row, older=older, newer=counted, half_began=began)

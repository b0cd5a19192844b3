"""How likely a gate is to pass, and how often normal traffic trips a burst, without simulating. Pure.

The gate's statistic is a Brownian motion with drift over information time, and its boundary a constant: the chance to
have crossed it follows from the reflection principle (Siegmund 1985, "Sequential Analysis", (3.15)).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from ratchet.schemas.rollout_policy import BurstPolicy, Gate
from ratchet.services.rules.rollouts.sequential import EXCEEDANCE, OVERSHOOT
from ratchet.services.rules.rollouts.traffic import LATENCY, WIN_RATE, Signal, Traffic

_NORMAL = NormalDist()
_MOST = 10_000_000


def slack(gate: Gate, signal: Signal) -> float:
    """How far inside its margin an equal candidate is, in the metric's unit."""
    return gate.margin * abs(signal.base) if gate.margin_kind == "rel" else gate.margin


def unit_variance(gate: Gate, signal: Signal, traffic: Traffic, weight: float) -> float:
    """Variance of the estimated difference times the candidate's observations, as a pass takes it.

    Args:
        gate: the question.
        signal: how its metric shows itself.
        traffic: whose prompts both arms answer in a shadow stage.
        weight: share of users with the candidate; 0: mirrored copies, compared prompt by prompt.
    """
    if gate.metric == WIN_RATE:
        return signal.base / 4
    one = signal.base * (1 - signal.base) if signal.spread is None else signal.spread**2
    if not weight:
        return max(2 * one * (1 - traffic.agreement), (2 * one * (1 - traffic.agreement) + slack(gate, signal)) / 2)
    worse = signal.base + slack(gate, signal) * (1 if gate.lower_is_better else -1)
    at_margin = worse * (1 - worse) if signal.spread is None and 0 < worse < 1 else 0.0
    return max(one, (one + at_margin) / 2) + one * weight / max(1 - weight, 1e-9)


def chance_to_pass(gate: Gate, signal: Signal, traffic: Traffic, weight: float, n: float) -> float:
    """The chance that an equal candidate has passed by its ``n``-th observation (of users who do not repeat)."""
    n = min(n, gate.max_n)
    if n < gate.min_n:
        return 0.0
    if gate.metric == LATENCY:
        return _chance_of_speed(gate, traffic, n * ((1 - weight) if weight else 0.5))
    each = unit_variance(gate, signal, traffic, weight)
    if each == 0:
        return 1.0
    bound = _NORMAL.inv_cdf(1 - gate.alpha / 2) * math.sqrt(gate.max_n * OVERSHOOT / each)
    time, drift = n / each, slack(gate, signal)
    straight = _NORMAL.cdf((drift * time - bound) / math.sqrt(time))
    reflected = _NORMAL.cdf((-drift * time - bound) / math.sqrt(time))
    return min(straight + (math.exp(min(2 * drift * bound, 700)) * reflected if reflected else 0.0), 1.0)


def least_max_n(gate: Gate, signal: Signal, traffic: Traffic, weight: float, power: float) -> int | None:
    """The smallest ``max_n`` with which an equal candidate passes with this chance; None where none does."""

    def enough(n: int) -> bool:
        # only max_n changes: validation would look at min_n
        asked = gate.model_copy(update={"max_n": n, "min_n": 1})
        return chance_to_pass(asked, signal, traffic, weight, n) >= power

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _chance_of_speed(gate: Gate, traffic: Traffic, n: float) -> float:
    """Of an e-process with the best single bet against "more than 5% exceed"; a mixture pays the log of its size."""
    bound = 1 + gate.margin if gate.margin_kind == "rel" else 1 + gate.margin / 1_000
    exceeds = 1 - _NORMAL.cdf(_NORMAL.inv_cdf(1 - EXCEEDANCE) + math.log(bound) / traffic.latency_sd)
    bet = (EXCEEDANCE - exceeds) / (EXCEEDANCE * (1 - EXCEEDANCE))
    if bet <= 0:
        return 0.0
    gain, loss = math.log1p(bet * EXCEEDANCE), math.log1p(-bet * (1 - EXCEEDANCE))
    growth = (1 - exceeds) * gain + exceeds * loss
    spread = (gain - loss) * math.sqrt(exceeds * (1 - exceeds) * n)
    return _NORMAL.cdf((n * growth - math.log(1 / gate.alpha) - 1) / spread)


def burst_alarms(policy: BurstPolicy, calls_per_hour: float, failing: float, hours: float, compared: bool) -> float:
    """At most so many bursts are expected of a healthy candidate.

    A burst begins with a failed call; counted is each failed call whose last ``window_s`` seconds make a burst of it.
    Fisher's test against the stable arm, where that has calls, leaves at most ``alpha`` of those windows.

    Args:
        policy: what a burst is.
        calls_per_hour: the candidate's.
        failing: share of calls that fail in both arms.
        hours: for how long.
        compared: whether the stable arm has calls too.
    """
    expected = calls_per_hour * policy.window_s / 3600
    trips, calls = 0.0, max(policy.min_n - 1, 0)
    most = int(expected + 12 * math.sqrt(expected) + policy.min_n + 20)
    for n in range(calls, most):
        seen = math.exp(n * math.log(expected) - expected - math.lgamma(n + 1)) if expected else float(n == 0)
        needed = math.ceil(policy.share * (n + 1)) - 1
        trips += seen * _at_least(needed, n, failing)
    if compared:
        trips = min(trips, policy.alpha)
    return calls_per_hour * failing * hours * trips


def _at_least(k: int, n: int, p: float) -> float:
    """The chance of k or more of n, where that is the rarer half; else 1."""
    if k <= n * p:
        return 1.0
    if p <= 0 or k > n:
        return 0.0
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    term = total = math.exp(choose + k * math.log(p) + (n - k) * math.log1p(-p))
    for i in range(k, n):
        term *= (n - i) / (i + 1) * p / (1 - p)
        total += term
        if term <= 1e-12 * total:
            break
    return min(total, 1.0)

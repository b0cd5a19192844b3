"""What is wrong with a rollout's policy at a task's traffic: what cannot decide in time, what it trips. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_policy import Gate, Stage
from ratchet.services.rules.rollouts.linting import FULL, Finding, Hidden, asked, where
from ratchet.services.rules.rollouts.power import burst_alarms, chance_to_pass, least_max_n
from ratchet.services.rules.rollouts.traffic import Signal, Traffic

NEVER, SELDOM = 0.5, 0.8
"""An equal candidate's chance to pass: below the first a gate is refused, below the second it is worth a look."""
BURSTS = 0.01
"""Bursts of healthy candidates, a rollout, that are refused; a tenth of it is worth a look."""


def lint_traffic(policy: TaskPolicy, hidden: Hidden, traffic: Traffic) -> list[Finding]:
    """What is wrong at this traffic.

    Args:
        policy: the task's.
        hidden: what a stage cannot show.
        traffic: as measured or as said.
    """
    found = [*_bursts(policy, traffic), *_late(policy, hidden, traffic)]
    split = [stage for stage in policy.rollout.stages if 0 < stage.weight_bp < FULL]
    for stage in policy.rollout.stages:
        requests = _reached(policy, stage, traffic, Signal(0.0))
        if stage.min_n > requests:
            found.append(
                Finding(
                    "error",
                    f"rollout.stages[{stage.name}].min_n",
                    f"{stage.min_n}",
                    f"the candidate gets about {requests:,.0f} requests before max_wait_s is over",
                    f"at most {requests:,.0f}, or a longer max_wait_s",
                )
            )
        # what earlier stages proved stays proved, so of stages with users the first decides unless one starts anew
        decides = stage.weight_bp == 0 or (stage in split and (stage is split[0] or stage.evidence == "reset"))
        for gate in asked(policy, stage) if decides else ():
            if gate.metric not in hidden(stage) and not gate.dry_run and gate.metric in traffic.signals:
                found += _of_gate(policy, stage, gate, traffic)
    return list(dict.fromkeys(found))


def _of_gate(policy: TaskPolicy, stage: Stage, gate: Gate, traffic: Traffic) -> Iterator[Finding]:
    signal, field = traffic.signals[gate.metric], where(stage, gate)
    weight = stage.weight_bp / FULL
    chance = chance_to_pass(gate, signal, traffic, weight, gate.max_n)
    if chance < SELDOM and gate.margin > 0:
        needed = least_max_n(gate, signal, traffic, weight, SELDOM)
        allowed = (
            f"at least {needed} (passes {SELDOM:.0%} of the time), or a wider margin" if needed else "a wider margin"
        )
        of = f"a stable mean of {signal.base:g}" if gate.metric != "latency_p95" else f"σ {traffic.latency_sd:g}"
        yield Finding(
            "error" if chance < NEVER else "warning",
            f"{field}.max_n",
            f"{gate.max_n}",
            f"with margin {gate.margin:g} and {of} an equal candidate passes by then {chance:.0%} of the time"
            f" in stage {stage.name!r}",
            allowed,
        )
        return
    reached = _reached(policy, stage, traffic, signal, gate)
    independent = reached / _design_effect(stage, traffic, reached)
    if independent >= gate.max_n or gate.margin == 0:
        return
    at = f"in stage {stage.name!r}"
    if reached < gate.min_n:
        yield Finding(
            "error",
            f"{field}.min_n",
            f"{gate.min_n}",
            f"{at} about {reached:,.0f} observations come before its time is over: it can never decide",
            f"at most {reached:,.0f}, or more traffic or time for that stage",
        )
        return
    in_time = chance_to_pass(gate, signal, traffic, weight, independent)
    worth = f" (worth {independent:,.0f} independent ones)" if independent < 0.9 * reached else ""
    if in_time < SELDOM:
        yield Finding(
            "error" if in_time < NEVER else "warning",
            f"{field}.max_n",
            f"{gate.max_n}",
            f"{at} about {reached:,.0f} observations{worth} come before its time is over, and an equal candidate"
            f" passes by then {in_time:.0%} of the time",
            "a longer max_wait_s, a larger weight_bp or mirror_bp, a wider margin, or a smaller max_n"
            " (the boundary is planned for it)",
        )


def _late(policy: TaskPolicy, hidden: Hidden, traffic: Traffic) -> Iterator[Finding]:
    """Gates that are first asked when what was carried is more than their last look may have."""
    requests, before = 0.0, set[str]()
    for stage in policy.rollout.stages:
        weight = stage.weight_bp / FULL
        if not 0 < weight < 1:
            continue
        if stage.evidence == "reset":
            requests, before = 0.0, set()
        for gate in asked(policy, stage):
            if gate.dry_run or gate.metric in before | hidden(stage) or gate.metric not in traffic.signals:
                continue
            n = requests * traffic.signals[gate.metric].share
            independent = n / _design_effect(stage, traffic, n)
            if independent > gate.max_n:
                yield Finding(
                    "error",
                    f"{where(stage, gate)}.max_n",
                    f"{gate.max_n}",
                    f"stage {stage.name!r} asks it first, with about {independent:,.0f} independent observations"
                    " carried into it: its last look is over by then, so it can never pass",
                    f"at least {independent:,.0f}, evidence = 'reset', or a gate of the first stage with users, too",
                )
            before.add(gate.metric)
        requests += traffic.requests_per_hour * weight * stage.min_duration_s * policy.rollout.time_scale / 3600


def _reached(policy: TaskPolicy, stage: Stage, traffic: Traffic, signal: Signal, gate: Gate | None = None) -> float:
    """The candidate's observations in a stage until its or the gate's time is over."""
    wait = stage.max_wait_s if gate is None or gate.max_wait_s is None else min(gate.max_wait_s, stage.max_wait_s)
    hours = max(wait * policy.rollout.time_scale / 3600 - signal.delay_h, 0.0)
    share = (stage.weight_bp or stage.mirror_bp) / FULL
    return traffic.requests_per_hour * share * signal.share * hours


def _design_effect(stage: Stage, traffic: Traffic, n: float) -> float:
    """How many times the variance is that of independent observations, n of them by users of lognormal activity."""
    if traffic.users is None:
        return 1.0
    users = traffic.users * ((stage.weight_bp / FULL) or 1.0)
    return 1 + n / users * math.exp(traffic.activity_sd**2) * traffic.icc


def _bursts(policy: TaskPolicy, traffic: Traffic) -> Iterator[Finding]:
    rollout, errors = policy.rollout, traffic.signals.get("error_rate")
    if errors is None:
        return
    alarms = 0.0
    for stage in rollout.stages:
        weight, hours = stage.weight_bp / FULL, stage.min_duration_s * rollout.time_scale / 3600
        if weight:
            calls = traffic.requests_per_hour * weight
            alarms += burst_alarms(rollout.burst, calls, errors.base, hours, compared=weight < 1)
    if alarms > BURSTS / 10:
        yield Finding(
            "error" if alarms > BURSTS else "warning",
            "rollout.burst",
            f"min_n {rollout.burst.min_n}, share {rollout.burst.share:g}, window_s {rollout.burst.window_s:g}",
            f"at an error rate of {errors.base:.2%} up to {alarms:.2g} aborts a rollout of a healthy candidate",
            "a larger min_n or share",
        )

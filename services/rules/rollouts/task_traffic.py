"""What a task's traffic is like, from what was measured or said of it: the signals that its gates look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_policy import Gate
from ratchet.services.rules.rollouts.evidence import threshold
from ratchet.services.rules.rollouts.traffic import LATENCY, P95_MS, WIN_RATE, Signal, Traffic


@dataclass(frozen=True, slots=True)
class Measured:
    """A task's production traffic in figures, each with what is assumed where nobody says and nothing was recorded.

    Rates are shares of answers; ``outcome_share`` and ``feedback_share`` are the shares of requests that get an outcome
    event and a thumb, ``delay_h`` hours later. ``users`` send something within a few days; None: nobody knows them
    apart.
    """

    requests_per_hour: float = 1_000.0
    users: int | None = None
    activity_sd: float = 1.0
    icc: float = 0.02
    completion: float = 0.9
    outcome_share: float = 1.0
    error_rate: float = 0.01
    satisfaction: float = 0.8
    feedback_share: float = 0.1
    delay_h: float = 0.0
    latency_sd: float = 0.8


def traffic_of(policy: TaskPolicy, measured: Measured, hidden: Iterable[str] = ()) -> Traffic:
    """The traffic that the task's gates would see.

    Args:
        policy: whose gates, checks and sampling.
        measured: production's figures.
        hidden: metrics that a stage without users of the candidate cannot show.
    """
    rollout, unseen = policy.rollout, frozenset(hidden)
    gates = [gate.metric for stage in rollout.stages for gate in stage.gates or rollout.gates]
    names = list(dict.fromkeys([*gates, "error_rate"]))  # errors come in bursts, whether a gate asks or not
    return Traffic(
        requests_per_hour=measured.requests_per_hour,
        signals={name: _signal(name, policy, measured, name not in unseen) for name in names},
        users=measured.users,
        activity_sd=measured.activity_sd,
        icc=measured.icc,
        latency_sd=measured.latency_sd,
    )


def _signal(metric: str, policy: TaskPolicy, measured: Measured, mirrored: bool) -> Signal:
    match metric:
        case "completion" if policy.completion == "outcome":
            return Signal(measured.completion, None, measured.outcome_share, measured.delay_h, mirrored)
        case "completion":
            return Signal(measured.completion, mirrored=mirrored)
        case "error_rate":
            return Signal(measured.error_rate, mirrored=mirrored)
        case "satisfaction":
            return Signal(measured.satisfaction, None, measured.feedback_share, measured.delay_h, mirrored)
        case "judge_score":
            return Signal(0.8, 0.2, policy.judge.fraction, mirrored=mirrored)
        case "refusal_rate":
            return Signal(0.03, mirrored=mirrored)
    if metric == WIN_RATE:
        return Signal(0.6, mirrored=mirrored)
    if metric == LATENCY:
        return Signal(1.0, mirrored=mirrored)
    if metric in ("cost", "length"):
        return Signal(1.0, 1.0, mirrored=mirrored)
    return Signal(0.9, mirrored=mirrored)


def candidates(policy: TaskPolicy, traffic: Traffic) -> dict[str, dict[str, float]]:
    """The candidates that a simulation asks about, each by its true differences from stable.

    One that is equal; for each gate one exactly at its margin, which must not pass; one that is four margins worse
    in the first critical gate, which must go soon.
    """
    found: dict[str, dict[str, float]] = {"equal": {}}
    gates = [gate for stage in policy.rollout.stages for gate in stage.gates or policy.rollout.gates]
    deciding = {gate.metric: gate for gate in gates if not gate.dry_run and gate.metric in traffic.signals}
    for gate in deciding.values():
        found[f"{gate.metric} at its margin"] = {gate.metric: _worse(gate, traffic, 1.0)}
    if worst := next((gate for gate in deciding.values() if gate.critical), None):
        found[f"{worst.metric} 4 margins worse"] = {worst.metric: _worse(worst, traffic, 4.0)}
    return found


def _worse(gate: Gate, traffic: Traffic, margins: float) -> float:
    signal = traffic.signals[gate.metric]
    if gate.metric == LATENCY:
        return margins * (threshold(gate, P95_MS) / P95_MS - 1)
    size = margins * (gate.margin * abs(signal.base) if gate.margin_kind == "rel" else gate.margin)
    if gate.metric == WIN_RATE:
        return -min(size, signal.base / 2)  # when no comparison is won any more
    if signal.spread is not None:
        return size if gate.lower_is_better else -size
    return min(size, 1 - signal.base) if gate.lower_is_better else -min(size, signal.base)

"""What many simulated rollouts came to: shares with their intervals, times, and which gate took how long. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ratchet.consumers.rules.intervals import wilson
from ratchet.services.rules.rollouts.simulation import Outcome


@dataclass(frozen=True, slots=True)
class Figure:
    """A share or a mean with its 95% interval; ``n`` rollouts say so."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Times:
    """Hours, over those rollouts to which it happened: ``share`` of all."""

    median: float
    p90: float
    share: float


@dataclass(frozen=True, slots=True)
class Summary:
    """How rollouts ended and when.

    ``requests`` are the candidate's with users, of those rollouts that got that far; ``harm_requests`` those until an
    abort (mirrored copies, where it came before any user). ``gates`` are hours in the stage until a gate passed;
    ``stuck`` says how often each gate was among the reasons for a pause.
    """

    rollouts: int
    promoted: Figure
    aborted: Figure
    paused: Figure
    undecided: Figure
    hours: Times | None
    hours_promoted: Times | None
    requests: Figure | None
    harm_requests: Figure | None
    harm_hours: Times | None
    stages: dict[str, Times]
    gates: dict[str, dict[str, Times]]
    stuck: dict[str, int]
    mismatches: int


def share(k: int, n: int) -> Figure:
    """A share with Wilson's 95% interval."""
    low, high = wilson(k, n)
    return Figure(k / n if n else 0.0, low, high, n)


def mean(values: Sequence[float]) -> Figure | None:
    """A mean with its 95% interval (normal); None of nothing."""
    n = len(values)
    if not n:
        return None
    middle = math.fsum(values) / n
    variance = math.fsum((value - middle) ** 2 for value in values) / max(n - 1, 1)
    radius = 1.96 * math.sqrt(variance / n)
    return Figure(middle, middle - radius, middle + radius, n)


def times(values: Iterable[float], of: int) -> Times | None:
    """Median and 90th percentile (nearest rank); None of nothing."""
    ranked = sorted(values)
    if not ranked:
        return None
    p90 = ranked[max(math.ceil(0.9 * len(ranked)) - 1, 0)]
    return Times(ranked[(len(ranked) - 1) // 2], p90, len(ranked) / of)


def summarise(outcomes: Sequence[Outcome], gates: Iterable[str]) -> Summary:
    """Count, order and average.

    Args:
        outcomes: of one kind of candidate.
        gates: the metrics whose part in pauses is counted.
    """
    n = len(outcomes)
    ended = Counter(one.ended for one in outcomes)
    harmed = [one for one in outcomes if one.ended == "aborted"]
    served = [one for one in outcomes if one.requests]
    by_stage: dict[str, list[float]] = {}
    by_gate: dict[str, dict[str, list[float]]] = {}
    for one in outcomes:
        for stage, hours in one.left.items():
            by_stage.setdefault(stage, []).append(hours)
        for (stage, gate), hours in one.passed.items():
            by_gate.setdefault(stage, {}).setdefault(gate, []).append(hours)
    paused = [one.reason for one in outcomes if one.ended == "paused"]
    return Summary(
        rollouts=n,
        promoted=share(ended["promoted"], n),
        aborted=share(ended["aborted"], n),
        paused=share(ended["paused"], n),
        undecided=share(ended["running"], n),
        hours=times((one.hours for one in outcomes), n),
        hours_promoted=times((one.hours for one in outcomes if one.ended == "promoted"), n),
        requests=mean([one.requests for one in served]),
        harm_requests=mean([one.requests or one.copies for one in harmed]),
        harm_hours=times((one.hours for one in harmed), n),
        stages={stage: found for stage, hours in by_stage.items() if (found := times(hours, n))},
        gates={
            stage: {gate: found for gate, hours in each.items() if (found := times(hours, n))}
            for stage, each in by_gate.items()
        },
        stuck={gate: k for gate in gates if (k := sum(f"{gate}: " in reason for reason in paused))},
        mismatches=sum("sample-ratio mismatch" in reason for reason in paused),
    )

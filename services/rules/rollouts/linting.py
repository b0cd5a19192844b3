"""What is wrong with a rollout's policy before it runs: what can never decide, and what lets harm through. Pure.

An error is refused by `ratchet rollout lint`; a warning is worth a look. What depends on traffic is in
`lint_traffic.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_policy import CHECK, Gate, Stage

FULL = 10_000
Hidden = Callable[[Stage], frozenset[str]]
"""The metrics that a stage cannot show."""
Trusted = Mapping[str, bool]
LOOSE_ALPHA, MOST_ALPHA = 0.1, 0.2
WIDE, MOST_MARGIN = 0.1, 0.5
"""Points of a rate: above the first a margin is worth a look, at the second it asks nothing."""
WIDE_SHARE, MOST_SHARE = 0.5, 2.0
"""The same of a relative margin."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which field, its value, why, and what is allowed."""

    severity: Literal["error", "warning"]
    field: str
    value: str
    why: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.field} = {self.value}: {self.why}; allowed: {self.allowed}"


def where(stage: Stage, gate: Gate) -> str:
    """The field's name in ``ratchet.toml``, under the task."""
    own = "" if stage.gates is None else f"stages[{stage.name}]."
    return f"rollout.{own}gates[{gate.metric}]"


def asked(policy: TaskPolicy, stage: Stage) -> list[Gate]:
    """The gates that a stage asks."""
    return policy.rollout.gates if stage.gates is None else stage.gates


def lint(policy: TaskPolicy, hidden: Hidden, trusted: Trusted | None = None) -> list[Finding]:
    """What is wrong whatever the traffic.

    Args:
        policy: the task's.
        hidden: what a stage cannot show.
        trusted: by metric whether its judge's word decides; None: unknown.
    """
    found = [*_of_stages(policy, hidden), *_of_gates(policy, hidden, trusted), *_of_the_rest(policy)]
    return list(dict.fromkeys(found))


def _of_stages(policy: TaskPolicy, hidden: Hidden) -> Iterator[Finding]:
    stages = policy.rollout.stages
    split = [stage for stage in stages if 0 < stage.weight_bp < FULL]
    if not split:
        names = ", ".join(f"{stage.name} {stage.weight_bp}" for stage in stages)
        yield Finding(
            "error",
            "rollout.stages.weight_bp",
            names,
            "every user gets the candidate at once, and no user stays with stable to compare with",
            "a stage with weight_bp between 1 and 9999 before the last",
        )
    deciding = [
        gate
        for stage in split
        for gate in asked(policy, stage)
        if gate.critical and not gate.dry_run and gate.metric not in hidden(stage)
    ]
    if split and not deciding:
        yield Finding(
            "error",
            "rollout.gates.critical",
            "none",
            "no stage with users of both arms has a critical gate: proved harm aborts nothing",
            "at least one gate with critical = true and dry_run = false that such a stage can observe",
        )
    for stage in stages:
        gates, field = asked(policy, stage), f"rollout.stages[{stage.name}]"
        if not stage.weight_bp and not stage.mirror_bp and (gates or stage.min_n):
            yield Finding("error", f"{field}.mirror_bp", "0", "the candidate gets no request in it", "at least 1")
        seen = [gate for gate in gates if gate.metric not in hidden(stage)]
        if gates and not seen:
            names = ", ".join(gate.metric for gate in gates)
            yield Finding(
                "error",
                f"{field}.gates",
                names,
                "the stage can observe none of them, so it never ends",
                "a gate that it can observe, or []",
            )
        elif seen and all(gate.dry_run for gate in seen) and stage.weight_bp < FULL:
            names = ", ".join(gate.metric for gate in seen)
            yield Finding(
                "error", f"{field}.gates", names, "all are dry_run: harm passes through", "a gate with dry_run = false"
            )
        if stage.max_wait_s < stage.min_duration_s:
            yield Finding(
                "warning",
                f"{field}.max_wait_s",
                f"{stage.max_wait_s:g}",
                f"an undecided stage times out before its min_duration_s {stage.min_duration_s:g} is over",
                "at least min_duration_s",
            )
        if stage.evidence == "reset" and stage.weight_bp == FULL and seen:
            yield Finding(
                "error",
                f"{field}.evidence",
                "reset",
                "nobody is left on stable at 100%, so without what was carried its gates see nothing",
                "'carry', or gates = []",
            )


def _of_gates(policy: TaskPolicy, hidden: Hidden, trusted: Trusted | None) -> Iterator[Finding]:
    checks = {check.name for check in policy.checks}
    refusals = [check.name for check in policy.checks if check.kind == "refusal"]
    for stage in policy.rollout.stages:
        for gate in asked(policy, stage):
            field = where(stage, gate)
            name = gate.metric.removeprefix(CHECK)
            if gate.metric.startswith(CHECK) and name not in checks:
                declared = ", ".join(sorted(checks)) or "none is declared"
                yield Finding("error", field, gate.metric, "no such check, so it never decides", f"one of: {declared}")
            if gate.metric == "refusal_rate" and not refusals:
                yield Finding(
                    "error",
                    field,
                    gate.metric,
                    "nothing says what a refusal is, so it never decides",
                    "with a check of kind 'refusal' under checks",
                )
            if trusted and trusted.get(gate.metric) is False and not gate.dry_run:
                yield Finding(
                    "warning",
                    field,
                    gate.metric,
                    "the judge is not calibrated, so its word is shown and never decides: the stage waits for it",
                    "dry_run = true until the judge is calibrated (ratchet judge calibrate)",
                )
            if gate.metric == "win_rate" and stage.weight_bp and stage.gates is not None:
                yield Finding(
                    "error",
                    field,
                    gate.metric,
                    "two answers to one prompt exist in a shadow stage alone",
                    "in a stage with weight_bp 0 and mirror_bp above 0",
                )
            yield from _of_numbers(gate, field)
    shown = {gate.metric for stage in policy.rollout.stages for gate in asked(policy, stage)} - {
        gate.metric
        for stage in policy.rollout.stages
        for gate in asked(policy, stage)
        if gate.metric not in hidden(stage)
    }
    for metric in sorted(shown):
        yield Finding(
            "error", f"rollout.gates[{metric}]", metric, "no stage can observe it", "a stage that can, or leave it out"
        )


def _of_numbers(gate: Gate, field: str) -> Iterator[Finding]:
    if gate.alpha > LOOSE_ALPHA:
        yield Finding(
            "error" if gate.alpha >= MOST_ALPHA else "warning",
            f"{field}.alpha",
            f"{gate.alpha:g}",
            f"a candidate exactly at its margin is promoted in up to {gate.alpha:.0%} of rollouts",
            f"below {MOST_ALPHA:g}, 0.05 is usual",
        )
    if gate.margin == 0:
        yield Finding(
            "warning",
            f"{field}.margin",
            "0",
            "an equal candidate hardly ever passes: it must be shown to be better",
            "how much worse is still acceptable, above 0",
        )
    wide, most = (WIDE_SHARE, MOST_SHARE) if gate.margin_kind == "rel" else (WIDE, MOST_MARGIN)
    if gate.metric == "latency_p95" and gate.margin_kind == "abs":
        return
    if gate.margin > wide:
        size = f"{gate.margin:.0%} of stable" if gate.margin_kind == "rel" else f"{100 * gate.margin:g} points"
        yield Finding(
            "error" if gate.margin >= most else "warning",
            f"{field}.margin",
            f"{gate.margin:g}",
            f"a candidate {size} worse counts as good enough",
            f"below {most:g}, at most {wide:g} is usual",
        )


def _of_the_rest(policy: TaskPolicy) -> Iterator[Finding]:
    rollout = policy.rollout
    if rollout.srm_alpha > 0.01:
        yield Finding(
            "warning",
            "rollout.srm_alpha",
            f"{rollout.srm_alpha:g}",
            f"up to {rollout.srm_alpha:.0%} of fairly split stages are paused",
            "at most 0.01",
        )
    if rollout.burst.share < 0.1:
        yield Finding(
            "warning",
            "rollout.burst.share",
            f"{rollout.burst.share:g}",
            "one failure in a quiet minute can be a burst",
            "at least 0.1",
        )

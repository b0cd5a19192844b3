"""Where a rollout stands, as a person asks it: stages and time, how far each gate is, who waits, who follows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ratchet.schemas.events import Adapter
from ratchet.schemas.rollout_events import GateResult, Rollout
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.rules.rollouts.acknowledging import LIVE
from ratchet.services.rules.rollouts.deciding import key
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Means
from ratchet.services.rules.rollouts.waiting import UNDER_WAY, can_supersede, number, queue

FULL = 10_000


@dataclass(frozen=True)
class Step:
    """One stage on the track, with the time of it that is over, and the least and the most of it, in seconds."""

    name: str
    weight_bp: int
    mirror_bp: int
    place: Literal["past", "present", "ahead"]
    elapsed_s: float | None
    min_s: float
    max_s: float


@dataclass(frozen=True)
class GateStanding:
    """One gate's figures, and how far it is from a decision.

    ``needed_n`` observations of the candidate decide it if what was seen so far stays as it is; at the stage's
    present rate that takes ``remaining_s`` more seconds (None: nothing comes in), of ``left_s`` that are allowed.
    ``carried`` names the earlier stages whose evidence is in the figures.
    """

    result: GateResult
    proved: bool
    dry_run: bool
    carried: tuple[str, ...]
    max_n: int
    needed_n: int
    remaining_s: float | None
    left_s: float

    @property
    def decided(self) -> bool:
        """Whether more observations change nothing here."""
        return self.proved or self.result.verdict == "pass"

    @property
    def cannot_decide(self) -> bool:
        """Whether time runs out first, at the present rate."""
        return not self.decided and (self.remaining_s is None or self.remaining_s > self.left_s)


@dataclass(frozen=True)
class GatewayStanding:
    """What a gateway said last: the table's version that it routes by, and whether that is the one in force."""

    gateway: str
    version: int | None
    since: datetime | None
    seen_at: datetime
    acknowledged: bool
    silent: bool


@dataclass(frozen=True)
class Waiting:
    """An adapter whose rollout has not begun; ``next`` is the one that begins by itself, ``why`` says when."""

    adapter: str
    next: bool
    why: str


def track(table: Rollout, policy: RolloutPolicy, now: datetime) -> list[Step]:
    """The policy's stages; none is present where the rollout is over, or its stage is not in the policy any more."""
    names = [stage.name for stage in policy.stages]
    at = names.index(table.stage) if table.stage in names else None
    under_way = table.status in UNDER_WAY
    steps = []
    for index, stage in enumerate(policy.stages):
        place: Literal["past", "present", "ahead"] = "ahead"
        if table.status == "promoted" or (at is not None and index < at):
            place = "past"
        elif under_way and index == at:
            place = "present"
        elapsed = max((now - table.stage_started_at).total_seconds(), 0.0) if place == "present" else None
        least, most = stage.min_duration_s * policy.time_scale, stage.max_wait_s * policy.time_scale
        steps.append(Step(stage.name, stage.weight_bp, stage.mirror_bp, place, elapsed, least, most))
    return steps


def gate_standing(
    gate: Gate, result: GateResult, evidence: Evidence | None, table: Rollout, stage: Stage, scale: float, now: datetime
) -> GateStanding:
    """How far one gate is from a decision.

    Args:
        gate: the question.
        result: its answer at this moment.
        evidence: what it was answered from.
        table: the routing table in force.
        stage: the present stage.
        scale: the policy's ``time_scale``.
        now: the present instant.
    """
    elapsed = max((now - table.stage_started_at).total_seconds(), 0.0)
    allowed = stage.max_wait_s if gate.max_wait_s is None else min(gate.max_wait_s, stage.max_wait_s)
    counted, needed = result.candidate.n, needed_n(gate, result)
    rate = _own(evidence, stage) / elapsed if elapsed > 0 else 0.0
    remaining = max(needed - counted, 0) / rate if rate > 0 else 0.0 if needed <= counted else None
    return GateStanding(
        result=result,
        proved=key(gate) in table.proved,
        dry_run=gate.dry_run,
        carried=tuple(span.stage for span in table.carried),
        max_n=gate.max_n,
        needed_n=needed,
        remaining_s=remaining,
        left_s=max(allowed * scale - elapsed, 0.0),
    )


def needed_n(gate: Gate, result: GateResult) -> int:
    """How many observations of the candidate decide a gate if the difference stays as it is; at most the last look's.

    The bound for passing narrows in proportion to the number of observations (`sequential.pass_radius`), so it fits
    between difference and margin at n · radius / slack of them. A gate that has no such bound yet, or whose
    candidate is beyond the margin now, is decided at its last look.
    """
    n, last = result.candidate.n, last_n(gate, result)
    edge = result.high if gate.lower_is_better else result.low
    if result.verdict == "pass":
        return n
    if result.difference is None or edge is None:
        return last
    slack = result.margin - (result.difference if gate.lower_is_better else -result.difference)
    if slack <= 0:
        return last
    return round(min(max(n * abs(edge - result.difference) / slack, gate.min_n), last))


def last_n(gate: Gate, result: GateResult) -> int:
    """How many observations ``max_n`` independent ones are, where users repeat themselves as they did so far."""
    return round(result.candidate.n / result.progress) if result.progress and result.progress < 1 else gate.max_n


def _own(evidence: Evidence | None, stage: Stage) -> float:
    """The candidate's observations that the present stage itself brought."""
    if evidence is None or not evidence.strata or stage.weight_bp == FULL:
        return 0.0  # at 100% there is nobody to compare with
    match evidence.strata[-1]:
        case Means(candidate=sample):
            return sample.n if sample else 0.0
        case Exceedances(over=sample):
            return sample.n
        case paired:
            return paired.difference.n


def gateway_standings(rows: Sequence[Mapping[str, Any]], version: int, now: datetime) -> list[GatewayStanding]:
    """Each gateway's last word, by name.

    Args:
        rows: ``gateway, seen_at, version`` (0: it said nothing of this task) and ``since`` of each.
        version: the routing table in force.
        now: the present instant.
    """
    return [
        GatewayStanding(
            gateway=row["gateway"],
            version=row["version"] or None,
            since=row["since"] if row["version"] else None,
            seen_at=row["seen_at"],
            acknowledged=row["version"] >= version,
            silent=now - row["seen_at"] > LIVE,
        )
        for row in sorted(rows, key=lambda row: str(row["gateway"]))
    ]


def waiting_list(task: str, adapters: Iterable[Adapter], state: Rollout | None, together: int = 1) -> list[Waiting]:
    """The adapters of a task that wait for a rollout, the next first, each with why it has not begun.

    Args:
        task: the task's name.
        adapters: the registry.
        state: the routing table in force.
        together: so many of those that begin by themselves are compared in one rollout.
    """
    mine = [one for one in adapters if one.task == task and one.status == "registered" and one.answers]
    upcoming = queue(task, mine, state)[:together]
    named = [name for name in (state.stable, state.candidate, state.previous, *state.arms) if name] if state else []
    newest = max(map(number, named), default=0)
    held = sorted(
        (one for one in mine if number(one.name) > newest and one not in upcoming), key=lambda one: -number(one.name)
    )
    return [Waiting(one.name, one in upcoming, _why_not_yet(one, upcoming, state)) for one in (*upcoming, *held)]


def _why_not_yet(adapter: Adapter, upcoming: Sequence[Adapter], state: Rollout | None) -> str:
    if state and adapter.dataset in state.blocked:
        return f"an adapter of dataset {adapter.dataset} was aborted: only a person starts it"
    if adapter not in upcoming:
        newer = f"{upcoming[0].name} is newer and goes first" if upcoming else ""
        first = newer or "it was there before the last rollout began"
        return f"{first}: only a person starts it"
    if state is None or state.status not in UNDER_WAY:
        return "it begins once every replica has loaded it"
    if can_supersede(state):
        then = f"{state.candidate}, which has served nobody yet, once every replica has loaded it"
        return (
            f"it is compared with or supersedes {then}" if len(upcoming) > 1 or state.arms else f"it supersedes {then}"
        )
    return f"the rollout of {state.candidate} is {state.status} in {state.stage!r}: one at a time"

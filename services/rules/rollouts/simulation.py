"""Whole rollouts, simulated: made-up traffic through the real rules, from the first stage to the end. Pure and seeded.

What ClickHouse would show at each look comes from `simulated_traffic`; what is done about it is `rollout.decide` and
`rollout.apply` themselves. A look stands for the controller's many: the bounds hold at every look, so fewer looks
decide a little later and err a little less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.rules.rollouts import transitions
from ratchet.services.rules.rollouts.deciding import decide
from ratchet.services.rules.rollouts.evidence import (
    Burst,
    Evidence,
    Exceedances,
    Means,
    Paired,
    Split,
    StageEvidence,
    Stratum,
    threshold,
)
from ratchet.services.rules.rollouts.simulated_traffic import Ints, Population
from ratchet.services.rules.rollouts.traffic import LATENCY, P95_MS, WIN_RATE, Traffic

START = datetime(2026, 1, 1, tzinfo=UTC)
TASK, CANDIDATE = "task", "task@v1-00000000"
_ID = "019b7651-4c00-7000-8000-000000000000"
_CELLS = 400_000
"""Columns of all rollouts of a chunk together: what fits a processor's cache and a small memory."""


@dataclass(slots=True)
class Outcome:
    """How one rollout went.

    ``ended`` is promoted, aborted, paused, or running where the time given was over. ``requests`` are the candidate's
    with users, ``copies`` those mirrored to it. ``passed`` says by stage and gate after how many hours in the stage
    the gate passed, ``left`` by stage after how many it was left.
    """

    ended: str = "running"
    stage: str = ""
    hours: float = 0.0
    requests: int = 0
    copies: int = 0
    reason: str = ""
    failed: tuple[str, ...] = ()
    passed: dict[tuple[str, str], float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)


def simulate(
    policy: RolloutPolicy,
    traffic: Traffic,
    difference: Mapping[str, float],
    rollouts: int,
    seed: int,
    look_h: float = 0.5,
    hours: float = 60 * 24,
    users_known: bool = True,
) -> Iterator[Outcome]:
    """Run rollouts to their end; the same arguments give the same outcomes.

    Args:
        policy: stages, gates and all else that decides.
        traffic: what the task's traffic is like; a gate whose metric has no signal is not seen.
        difference: by metric the candidate's true mean less the stable arm's (of latency_p95: the share longer).
        rollouts: how many.
        seed: of all chance.
        look_h: hours between looks.
        hours: a rollout that is still running by then ends so.
        users_known: False shows what would become of it if a user's requests were taken for independent ones.
    """
    chunk = max(1, min(rollouts, _CELLS // (traffic.users or 200)))
    for begin in range(0, rollouts, chunk):
        random = np.random.default_rng([seed, begin])
        size = min(chunk, rollouts - begin)
        yield from _Chunk(policy, traffic, difference, size, random, look_h, users_known).run(hours)


class _Chunk:
    def __init__(
        self,
        policy: RolloutPolicy,
        traffic: Traffic,
        difference: Mapping[str, float],
        rollouts: int,
        random: np.random.Generator,
        look_h: float,
        users_known: bool,
    ) -> None:
        self.policy, self.traffic, self.difference = policy, traffic, difference
        self.random, self.look_h = random, look_h
        self.names = [stage.name for stage in policy.stages]
        self.gates = gates_at(policy)
        self.hidden = frozenset(name for name, signal in traffic.signals.items() if not signal.mirrored)
        bound = threshold(self.gates[LATENCY], P95_MS) / P95_MS if LATENCY in self.gates else 1.0
        self.users = Population(traffic, difference, bound, len(policy.stages), rollouts, random, users_known)
        self.outcomes = [Outcome() for _ in range(rollouts)]
        begun = transitions.begin(TASK, CANDIDATE, policy, None, START, _ID, _ID)
        self.states: list[Rollout] = [begun] * rollouts
        self.strata: dict[tuple[str, int], list[Stratum | None]] = {}

    def run(self, hours: float) -> list[Outcome]:
        """Look by look until all have ended."""
        look = 0
        while (active := [n for n, state in enumerate(self.states) if state.status == "running"]) and (
            look * self.look_h < hours
        ):
            look += 1
            by_stage: dict[int, list[int]] = {}
            for n in active:
                by_stage.setdefault(self.names.index(self.states[n].stage), []).append(n)
            asked = {index: np.array(rows) for index, rows in by_stage.items()}
            for index, rows in asked.items():
                stage = self.policy.stages[index]
                self.users.ask(look, self.look_h, index, stage.weight_bp / 1e4, stage.mirror_bp / 1e4, rows)
            for metric, stages in self.users.arrive(look).items():
                for index in stages:
                    self._sum_up(metric, index, np.array(active))
            now = START + timedelta(hours=look * self.look_h)
            for index, rows in asked.items():
                self._decide(index, rows, now)
        for n, state in enumerate(self.states):
            if state.status == "running":
                self._end(n, state, START + timedelta(hours=hours))
        return self.outcomes

    def _sum_up(self, metric: str, index: int, rows: Ints) -> None:
        """Make the strata of one metric and one stage anew."""
        stage = self.policy.stages[index]
        weight = stage.weight_bp / 1e4
        kept = self.strata.setdefault((metric, index), [None] * len(self.states))
        arm = self.users.arm(rows, weight)
        made: list[Stratum | None]
        if metric == LATENCY:
            gate = self.gates[LATENCY]
            made = [
                None
                if candidate is None
                else Exceedances(
                    n_stable=round(stable.n) if stable else 0,
                    p95_stable_ms=p95 if stable else None,
                    threshold_ms=threshold(gate, p95) if stable else None,
                    over=candidate,
                    stable_users=stable.users if stable else None,
                )
                for stable, candidate, p95 in self.users.over(index, rows, weight)
            ]
        elif weight:
            both = zip(
                self.users.sums(metric, index, rows, ~arm), self.users.sums(metric, index, rows, arm), strict=True
            )
            made = [Means(stable, candidate) for stable, candidate in both]
        else:
            pairs = self.users.sums(metric, index, rows, None)
            if metric == WIN_RATE:
                made = [None if one is None else Paired(one) for one in pairs]
            else:
                arms = self.users.arms_of_pairs(metric, index, rows)
                made = [None if one is None else Paired(one, *two) for one, two in zip(pairs, arms, strict=True)]
        for row, stratum in zip(rows.tolist(), made, strict=True):
            kept[row] = stratum

    def _decide(self, index: int, rows: Ints, now: datetime) -> None:
        stage = self.policy.stages[index]
        weight = stage.weight_bp / 1e4
        stable, candidate = (one.tolist() for one in self.users.keys(index, weight, rows))
        requests = self._requests(index, weight, rows)
        hidden = frozenset({WIN_RATE}) if weight else self.hidden
        for row, kept, taken, served in zip(rows.tolist(), stable, candidate, requests, strict=True):
            state = self.states[row]
            evidence = StageEvidence(
                {metric: self._evidence(metric, index, state, row) for metric in self.gates},
                unobservable=hidden,
                requests=served,
                split=Split(kept, taken, stage.weight_bp) if 0 < weight < 1 else None,
                burst=self._burst(weight),
            )
            self._follow(row, stage, evidence, now)

    def _follow(self, row: int, stage: Stage, evidence: StageEvidence, now: datetime) -> None:
        """Do what the rules decide, until they wait or another stage has begun."""
        outcome = self.outcomes[row]
        while True:
            state = self.states[row]
            decision = decide(state, evidence, self.policy, now)
            hours = (now - state.stage_started_at).total_seconds() / 3600
            for name in decision.proved[len(state.proved) :]:
                outcome.passed[stage.name, name.split()[0]] = hours
            if decision.action == "wait":
                return
            following = transitions.apply(state, decision, self.policy, now, _ID)
            self.states[row] = following
            if following.status != "running":
                outcome.reason = decision.reason
                outcome.failed = tuple(gate.gate for gate in decision.gates if gate.verdict == "fail")
            if following.status != "running" or following.stage != state.stage:
                outcome.left[stage.name] = hours
                served = evidence.requests
                outcome.requests += served if stage.weight_bp else 0
                outcome.copies += 0 if stage.weight_bp else served
                if following.status != "running":
                    outcome.ended, outcome.stage = following.status, stage.name
                    outcome.hours = (now - START).total_seconds() / 3600
                return

    def _end(self, row: int, state: Rollout, now: datetime) -> None:
        self.outcomes[row].stage = state.stage
        self.outcomes[row].hours = (now - START).total_seconds() / 3600

    def _evidence(self, metric: str, index: int, state: Rollout, row: int) -> Evidence | None:
        carried = [self.names.index(span.stage) for span in state.carried]
        found = [self.strata[metric, stage][row] for stage in [*carried, index] if (metric, stage) in self.strata]
        strata = tuple(one for one in found if one is not None)
        return Evidence(strata) if strata else None

    def _requests(self, index: int, weight: float, rows: Ints) -> list[int]:
        calls = self.users.calls[index, rows]
        mine = calls * self.users.arm(rows, weight) if weight else calls
        served: list[int] = mine.sum(1).astype(np.int64).tolist()
        return served

    def _burst(self, weight: float) -> Burst | None:
        """The last seconds' calls, drawn anew: as many of the whole evidence that it matters not."""
        signal = self.traffic.signals.get("error_rate")
        if signal is None or not weight:
            return None
        calls = self.traffic.requests_per_hour * self.policy.burst.window_s / 3600
        stable, candidate = self.random.poisson([calls * (1 - weight), calls * weight])
        worse = min(max(signal.base + self.difference.get("error_rate", 0.0), 0.0), 1.0)
        failed = self.random.binomial([stable, candidate], [signal.base, worse])
        return Burst(int(stable), int(failed[0]), int(candidate), int(failed[1]))


def gates_at(policy: RolloutPolicy) -> dict[str, Gate]:
    """The policy's gates by metric, those of single stages included."""
    return {gate.metric: gate for stage in policy.stages for gate in stage.gates or policy.gates}


def time_enough(policy: RolloutPolicy) -> float:
    """Hours after which every stage has ended by itself."""
    return sum(max(one.max_wait_s, one.min_duration_s) * policy.time_scale for one in policy.stages) / 3600 * 1.01


def look_hours(policy: RolloutPolicy) -> float:
    """Hours between looks that are many in every stage: an eighth of the shortest, half an hour at most."""
    shortest = min((one.min_duration_s for one in policy.stages if one.min_duration_s), default=4 * 3600.0)
    return max(min(shortest * policy.time_scale / 3600 / 8, 0.5), time_enough(policy) / 2_000)

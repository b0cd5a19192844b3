"""How a task's new adapters reach its users: the stages of a rollout, the gates between them, and what ends one.

Every number here is a default that `ratchet.toml` can change under ``[tasks.<name>.rollout]``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed

Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
CHECK = "check:"

Metric = Annotated[
    str,
    Field(
        pattern=r"^(?:completion|error_rate|latency_p95|satisfaction|judge_score|win_rate|cost|refusal_rate|length"
        r"|check:[a-z0-9][a-z0-9_-]{0,63})$",
        description="'check:<name>' is the share of answers that pass a check; 'win_rate' a judge's, of shadow pairs",
    ),
]
LOWER_IS_BETTER = frozenset({"error_rate", "latency_p95", "cost", "refusal_rate", "length"})
UNBOUNDED = frozenset({"cost", "length"})
"""Values that may exceed 1: dollars a request, characters an answer."""
USERS_ALONE = frozenset({"satisfaction"})
"""What nobody can say of a mirrored answer, which no user sees."""

_MAX_N = {
    "completion": 5_000,
    "error_rate": 10_000,
    "latency_p95": 12_000,
    "satisfaction": 1_500,
    "judge_score": 2_000,
    "win_rate": 2_000,
}
OnTimeout = Literal["pause", "rollback"]


class Gate(Closed):
    """One non-inferiority question about the candidate.

    ``margin`` is how much worse the candidate may be before it counts as worse: in the metric's unit (0.02 = 2
    points) or, with ``margin_kind="rel"``, as a share of the stable arm's value. Observations are counted in the
    candidate's arm.
    """

    metric: Metric
    margin: Annotated[float, Field(ge=0)]
    margin_kind: Literal["abs", "rel"] = "abs"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_n: AtLeastOne = Field(100, description="observations in each arm below which the gate is inconclusive")
    min_users: AtLeastOne = Field(10, description="likewise of users (or conversations): one user is no sample")
    max_n: AtLeastOne = Field(
        4_000, description="the candidate's observations at which the last look is taken, counted as independent ones"
    )
    max_wait_s: Positive | None = Field(None, description="in a stage, undecided; None: the stage's")
    on_timeout: OnTimeout | None = Field(None, description="what an undecided gate leads to; None: the stage's")
    critical: bool = Field(True, description="its failure aborts; a gate that is not critical pauses for a person")
    dry_run: bool = Field(False, description="shown and recorded, and neither blocks, pauses nor aborts")

    @model_validator(mode="before")
    @classmethod
    def _enough_by_metric(cls, values: object) -> object:
        """Rates near 0 and thumbs need other numbers than a completion rate does."""
        if isinstance(values, dict) and "max_n" not in values and values.get("metric") in _MAX_N:
            return values | {"max_n": max(_MAX_N[values["metric"]], int(values.get("min_n") or 0))}
        return values

    @model_validator(mode="after")
    def _bounds_agree(self) -> Gate:
        if self.max_n < self.min_n:
            raise ValueError(f"max_n {self.max_n} is below min_n {self.min_n}; allowed: at least min_n")
        if self.metric in UNBOUNDED and self.margin_kind == "abs":
            raise ValueError(f"{self.metric} with margin_kind 'abs'; allowed: 'rel', a share of the stable arm's value")
        return self

    @property
    def lower_is_better(self) -> bool:
        """Whether a higher value is worse."""
        return self.metric in LOWER_IS_BETTER


class Stage(Closed):
    """One step of a rollout: how many of 10,000 sticky keys get the candidate, or are mirrored to it."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    weight_bp: Annotated[int, Field(ge=0, le=10_000)] = 0
    mirror_bp: Annotated[int, Field(ge=0, le=10_000)] = 0
    min_duration_s: Annotated[float, Field(ge=0)] = 0
    max_wait_s: Positive = 7 * 86_400
    on_timeout: OnTimeout = "pause"
    gates: list[Gate] | None = Field(None, description="None: the policy's gates; a list: these instead")
    min_n: Annotated[int, Field(ge=0)] = Field(
        50, description="the candidate's own requests in this stage, whatever was carried into it"
    )
    evidence: Literal["carry", "reset"] = Field(
        "carry", description="whether what earlier stages with users showed counts here too; never a shadow stage's"
    )


def _stages() -> list[Stage]:
    hour = 3600.0
    return [
        Stage(name="shadow", mirror_bp=1_000, min_duration_s=24 * hour),
        Stage(name="5%", weight_bp=500, min_duration_s=4 * hour),
        Stage(name="20%", weight_bp=2_000, min_duration_s=4 * hour),
        Stage(name="50%", weight_bp=5_000, min_duration_s=4 * hour),
        Stage(name="100%", weight_bp=10_000, min_duration_s=4 * hour),
    ]


def _gates() -> list[Gate]:
    return [
        Gate(metric="completion", margin=0.02),
        Gate(metric="latency_p95", margin=0.20, margin_kind="rel"),
        Gate(metric="error_rate", margin=0.005),
        Gate(metric="satisfaction", margin=0.05),
    ]


class BurstPolicy(Closed):
    """When errors and fallbacks come so thick that nobody waits for a gate.

    Of the candidate's calls in the last ``window_s`` seconds at least ``min_n``, and at least ``share`` of them failed
    (each is a user who got a fallback's answer), while the stable arm's calls, if it has some, did not fail as often.
    """

    window_s: Positive = 60.0
    min_n: AtLeastOne = 10
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.001, description="of the test that the candidate fails more often than stable does in the same window"
    )


class BestArmPolicy(Closed):
    """Several candidates at once in a first stage without users; the best of them goes on to the gates.

    Each mirrored request is copied to one of them. A candidate is the best once it is shown, at every look, to be at
    most ``margin`` below each of the others; copies go where the choice is still open. Then the stage begins anew for
    it alone: what chose it is no evidence for it.
    """

    candidates: Annotated[int, Field(ge=1, le=8)] = Field(1, description="1: the newest alone, and a newer supersedes")
    metric: Metric = "completion"
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.02
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_n: AtLeastOne = Field(50, description="copies of each before any is left out")
    allocate_every_s: Positive = 300.0

    @model_validator(mode="after")
    def _bounded(self) -> BestArmPolicy:
        if self.metric in UNBOUNDED | USERS_ALONE | {"latency_p95"}:
            raise ValueError(f"metric {self.metric!r}; allowed: a share or a score that copies of requests can show")
        return self


class RolloutPolicy(Closed):
    """The stages of a rollout, the gates between them, and what ends one at once."""

    stages: list[Stage] = Field(default_factory=_stages, min_length=1)
    gates: list[Gate] = Field(default_factory=_gates)
    time_scale: Positive = Field(1.0, description="all durations of stages and gates times this: 0.001 for a rehearsal")
    burst: BurstPolicy = BurstPolicy()
    srm_alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.001, description="of the test that users were split as the stage says; a mismatch pauses the rollout"
    )
    best_arm: BestArmPolicy = BestArmPolicy()
    abort_on_page: bool = Field(True, description="an open critical alert about the candidate aborts")

    @model_validator(mode="after")
    def _stages_rise(self) -> RolloutPolicy:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages {names}: names repeat; allowed: each name once")
        weights = [stage.weight_bp for stage in self.stages]
        if weights != sorted(weights) or weights[-1] != 10_000:
            raise ValueError(f"stages' weight_bp {weights}; allowed: rising, the last 10000")
        first = self.stages[0]
        if self.best_arm.candidates > 1 and (first.weight_bp or not first.mirror_bp):
            raise ValueError(
                f"best_arm: stage {first.name!r} shows users its candidate; allowed: a first stage in shadow"
            )
        for where, gates in [("gates", self.gates), *((f"stage {s.name!r}", s.gates or []) for s in self.stages)]:
            metrics = [gate.metric for gate in gates]
            if len(set(metrics)) != len(metrics):
                raise ValueError(f"{where}: metrics {metrics} repeat; allowed: each once")
        return self

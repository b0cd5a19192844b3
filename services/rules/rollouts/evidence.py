"""What both arms of a rollout showed, as the gates take it: counts by metric and stage, clustered by user.

A sticky split gives a user's every request to one arm, so requests of one user are not independent:
what counts is how the *users* vary. Each arm's figures therefore come with the variance of their
mean by users (the linearized variance of a ratio; Deng, Knoblich and Lu 2018, "Applying the Delta
Method in Metric Analytics"), and an observation counts for less where users repeat themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ratchet.schemas.rollout_policy import Gate, Metric


@dataclass(frozen=True)
class Sample:
    """One arm in one stage: ``n`` observations, their sum and the sum of their squares.

    ``abstained`` more were asked about and got no verdict; they are in none of the figures. ``users`` of them
    are distinct (a user, else a conversation, else the request alone); None: every observation is its own user's.
    ``mean_variance`` is the variance of the mean by users, Σ(y−m·n)²/(Σn)²·C/(C−1) with y and n a user's sum and
    count over C users; None: as for independent observations. Where observations have weights, n counts rows
    and the sums are those of equal rows with the weighted mean.
    """

    n: float
    total: float
    squares: float
    abstained: float = 0.0
    users: int | None = None
    mean_variance: float | None = None

    @classmethod
    def proportion(cls, n: float, k: float) -> Sample:
        """``k`` successes among ``n`` users."""
        return cls(n, k, k)

    @property
    def mean(self) -> float:
        """The mean as observed, without smoothing."""
        return self.total / self.n

    @property
    def variance(self) -> float:
        """Variance of one observation, with half a 0 and half a 1 added to the sample.

        The added halves (Agresti and Coull's idea) keep the variance from collapsing to 0
        when all of a few observations agree; they vanish as n grows. The mean stays raw: shrinking
        it would favour the arm with more traffic.
        """
        mean = (self.total + 0.5) / (self.n + 1)
        return max((self.squares + 0.5) / (self.n + 1) - mean * mean, 0.0)

    @property
    def design_effect(self) -> float:
        """How many times the variance by users is that of independent observations; never below 1."""
        if self.mean_variance is None or self.n < 2:
            return 1.0
        plain = (self.squares / self.n - self.mean**2) / self.n
        return max(self.mean_variance / plain, 1.0) if plain > 0 else 1.0

    @property
    def effective_n(self) -> float:
        """As many independent observations say as much."""
        return self.n / self.design_effect

    @property
    def binary(self) -> bool:
        """Whether every observation is 0 or 1."""
        return math.isclose(self.squares, self.total, rel_tol=1e-9, abs_tol=1e-9)

    @property
    def abstained_share(self) -> float:
        """Of all that was asked about, the share without a verdict."""
        asked = self.n + self.abstained
        return self.abstained / asked if asked else 0.0


@dataclass(frozen=True)
class Means:
    """A rate or a mean in both arms of one stage; None where nothing could be observed."""

    stable: Sample | None
    candidate: Sample | None


@dataclass(frozen=True)
class Paired:
    """The same prompts answered by both: ``difference`` holds candidate minus stable, a prompt each.

    ``stable`` and ``candidate`` are the arms' own figures, for people to read; the test is of the differences,
    which prompts that are hard for both do not blur. Of a judge's comparisons the difference is ½ for a win, 0 for
    a tie, −½ for a loss, and there are no arms.
    """

    difference: Sample
    stable: Sample | None = None
    candidate: Sample | None = None


@dataclass(frozen=True)
class Exceedances:
    """Both arms of the latency gate in one stage; latencies in milliseconds.

    ``over`` says of the candidate's timed calls how many took longer than ``threshold_ms``, which is the gate's
    bound over the stable arm's ``p95_stable_ms`` in the same window.
    """

    n_stable: int
    p95_stable_ms: float | None
    threshold_ms: float | None
    over: Sample
    p95_candidate_ms: float | None = None
    stable_users: int | None = None


Stratum = Means | Paired | Exceedances


@dataclass(frozen=True)
class Evidence:
    """What one gate may look at: a stratum for each stage carried, oldest first, the present stage's own last.

    ``judged_by`` names the judge behind the figures, and ``trusted`` says whether its word decides: what an
    uncalibrated one saw is shown alone. Stages are compared within themselves and their differences added up, so that
    another mix of arms or another hour in one stage cannot look like a difference between the arms.
    """

    strata: tuple[Stratum, ...]
    judged_by: str | None = None
    trusted: bool = True


@dataclass(frozen=True)
class Split:
    """Distinct sticky keys that each arm got since the stage took effect everywhere, and the planned share."""

    stable: int
    candidate: int
    weight_bp: int


@dataclass(frozen=True)
class Burst:
    """Calls that ended in the last seconds: how many each arm had, and how many of them failed (error or timeout)."""

    n_stable: int
    failed_stable: int
    n_candidate: int
    failed_candidate: int


@dataclass(frozen=True)
class StageEvidence:
    """What was observed: by gate, and which metrics this stage cannot show.

    ``unobservable``: users never see a mirrored answer, so a stage without traffic for the candidate has no thumbs
    and no outcomes of it. ``requests`` are the candidate's own in this stage, mirrored copies included;
    ``stable_requests`` are stable's, for people to read. ``page`` is an open critical alert about the candidate, in
    one sentence. ``waiting_for`` names gateways that have not acknowledged the present table: nothing advances before
    they have. ``arms`` are the candidates that are compared with each other, where there are several: each one's
    differences to stable.
    """

    by_gate: Mapping[str, Evidence | None] = field(default_factory=dict)
    unobservable: frozenset[Metric] = frozenset()
    requests: int = 0
    stable_requests: int = 0
    split: Split | None = None
    burst: Burst | None = None
    page: str | None = None
    waiting_for: tuple[str, ...] = ()
    arms: Mapping[str, Sample | None] = field(default_factory=dict)


def threshold(gate: Gate, p95_stable_ms: float) -> float:
    """The latency in milliseconds that at most 5% of the candidate's calls may exceed."""
    return p95_stable_ms * (1 + gate.margin) if gate.margin_kind == "rel" else p95_stable_ms + gate.margin

"""What a task's owner decides about pairwise judging: how many comparisons, by which judge and rubric."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed
from ratchet.schemas.judging import JudgeName, RubricName

Share = Annotated[float, Field(ge=0, le=1)]


class PairwisePolicy(Closed):
    """Which answers a judge compares two by two; off where the task's judge is off.

    Every comparison asks the judge twice, once in each order.
    """

    enabled: bool = True
    judges: list[JudgeName] = Field(default_factory=list)
    """Under ``[judges]``, a cascade's cheapest first; empty: the first of the task's judges."""
    combine: Literal["panel", "cascade"] = "panel"
    """What several judges are: a panel's word is what more than half of it say, else a tie."""
    quorum: Annotated[int, Field(ge=2)] | None = None
    """Judges of a panel that must have a word for it to have one; None: all."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Below it a cascade goes on: the probability of the judge's own word; 0 where it gives none."""
    samples: Annotated[int, Field(ge=1, le=20)] = 3
    """Replies counted in each order where an endpoint gives no token probabilities; 1: one reply at temperature 0."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of those."""
    rubric: RubricName = "pairwise.v1"
    fraction: Share = 0.1
    """Of mirrored requests that both the production adapter and the candidate answered."""
    pair_fraction: Share = 0.05
    """Of preference pairs: a second opinion on what people said."""

    @model_validator(mode="after")
    def _judges_fit(self) -> PairwisePolicy:
        if len(set(self.judges)) != len(self.judges):
            raise ValueError(f"judges {self.judges}: names repeat; allowed: each name once")
        if self.quorum is not None and (self.combine != "panel" or self.quorum > len(self.judges)):
            raise ValueError(f"quorum {self.quorum}; allowed: with combine 'panel', at most the number of judges")
        return self

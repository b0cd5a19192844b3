"""What a task's owner decides about judging: which judges, which rubric, how much of the traffic."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed

Fraction = Annotated[float, Field(gt=0, le=1)]
JudgeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="under [judges.<name>]")]
RubricName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\.v[1-9][0-9]{0,3}$")]
PANEL, CASCADE = "panel:", "cascade:"
"""How the id of several judges' common word begins; what follows names them."""


class SeveralJudges(Closed):
    """Which judges are asked, what several of them are together, and what is done without token probabilities."""

    judges: list[JudgeName] = Field(default_factory=list)
    """Names under ``[judges]``, a cascade's cheapest first."""
    combine: Literal["panel", "cascade"] = "panel"
    """What several judges are: of a panel all are asked, of a cascade the next one where the one before is not sure."""
    quorum: Annotated[int, Field(ge=2)] | None = None
    """Judges of a panel that must have a word for it to have one; None: all. A panel of fewer is another instrument."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Below it, or where a judge abstains, a cascade goes on."""
    samples: Annotated[int, Field(ge=1, le=20)] = 3
    """Replies taken together where an endpoint gives no token probabilities; 1: one reply at temperature 0."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of those; at 1 their mean estimates what the token probabilities would say."""

    @model_validator(mode="after")
    def _judges_fit(self) -> Self:
        if len(set(self.judges)) != len(self.judges):
            raise ValueError(f"judges {self.judges}: names repeat; allowed: each name once")
        if self.quorum is not None and (self.combine != "panel" or self.quorum > len(self.judges)):
            raise ValueError(f"quorum {self.quorum}; allowed: with combine 'panel', at most the number of judges")
        return self


class JudgePolicy(SeveralJudges):
    """How much of the traffic LLMs judge, which of them, and by which rubric (a versioned file).

    No judges named: the only one there is. One judge's word is its own; of a ``panel`` each word is kept, and
    the mean is the panel's. A judge's confidence is 1 − 2 × the standard deviation of the score (0–1) by its
    distribution.
    """

    enabled: bool = True
    rubric: RubricName = "helpful.v1"
    fraction: Fraction = 0.1
    refusal_fraction: Fraction = 1.0
    """Of answers that refuse; all of them by default."""
    thumb_down_fraction: Fraction = 1.0
    """Of answers with a thumb down, whenever it comes; all of them by default."""
    agreement_floor: Annotated[float, Field(ge=0, le=1)] = 0.7
    min_labels: Annotated[int, Field(ge=1)] = 50

"""What a task's owner decides about judging: which judges, which rubric, how much of the traffic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed

Fraction = Annotated[float, Field(gt=0, le=1)]
JudgeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="under [judges.<name>]")]
RubricName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\.v[1-9][0-9]{0,3}$")]
PANEL, CASCADE = "panel:", "cascade:"
"""How the id of several judges' common word begins; what follows names them."""


class JudgePolicy(Closed):
    """How much of the traffic LLMs judge, which of them, and by which rubric (a versioned file).

    One judge's word is its own. Of a ``panel`` every judge is asked, each word is kept, and the mean is
    the panel's. Of a ``cascade`` the next judge is asked where the one before abstains or is not sure.
    """

    enabled: bool = True
    judges: list[JudgeName] = Field(default_factory=list)
    """Names under ``[judges]``, a cascade's cheapest first; empty: the only one there is."""
    combine: Literal["panel", "cascade"] = "panel"
    """What several judges are."""
    quorum: Annotated[int, Field(ge=2)] | None = None
    """Judges of a panel that must score for it to have a word; None: all. A panel of fewer is another instrument."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Below it a cascade goes on: 1 − 2 × the standard deviation of the score (0–1) by the judge's distribution."""
    samples: Annotated[int, Field(ge=1, le=20)] = 3
    """Replies averaged where an endpoint gives no token probabilities; 1: one reply at temperature 0, no spread."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of those; at 1 their mean estimates what the token probabilities would say."""
    rubric: RubricName = "helpful.v1"
    fraction: Fraction = 0.1
    refusal_fraction: Fraction = 1.0
    """Of answers that refuse; all of them by default."""
    thumb_down_fraction: Fraction = 1.0
    """Of answers with a thumb down, whenever it comes; all of them by default."""
    agreement_floor: Annotated[float, Field(ge=0, le=1)] = 0.7
    min_labels: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _judges_fit(self) -> JudgePolicy:
        if len(set(self.judges)) != len(self.judges):
            raise ValueError(f"judges {self.judges}: names repeat; allowed: each name once")
        if self.quorum is not None and (self.combine != "panel" or self.quorum > len(self.judges)):
            raise ValueError(f"quorum {self.quorum}; allowed: with combine 'panel', at most the number of judges")
        return self

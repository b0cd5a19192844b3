"""What a task's owner decides about pairwise judging: how many comparisons, by which judge and rubric."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.schemas.judging import RubricName, SeveralJudges

Share = Annotated[float, Field(ge=0, le=1)]


class PairwisePolicy(SeveralJudges):
    """Which answers a judge compares two by two; off where the task's judge is off.

    Every comparison asks the judge twice, once in each order. No judges named: the first of the task's. A panel's
    word is what more than half of it say, else a tie; a judge's confidence is the probability of its own word, 0
    where it gives none.
    """

    enabled: bool = True
    rubric: RubricName = "pairwise.v1"
    fraction: Share = 0.1
    """Of mirrored requests that both the production adapter and the candidate answered."""
    pair_fraction: Share = 0.05
    """Of preference pairs: a second opinion on what people said."""

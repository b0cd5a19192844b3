"""What a task's owner decides about pairwise judging: how many comparisons, by which judge and rubric."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.schemas.events import Closed
from ratchet.schemas.judging import JudgeName, RubricName

Share = Annotated[float, Field(ge=0, le=1)]


class PairwisePolicy(Closed):
    """Which answers a judge compares two by two; off where the task's judge is off.

    Every comparison asks the judge twice, once in each order.
    """

    enabled: bool = True
    judge: JudgeName | None = None
    """Under ``[judges]``; None: the first of the task's judges. A panel or a cascade does not compare."""
    rubric: RubricName = "pairwise.v1"
    fraction: Share = 0.1
    """Of mirrored requests that both the production adapter and the candidate answered."""
    pair_fraction: Share = 0.05
    """Of preference pairs: a second opinion on what people said."""

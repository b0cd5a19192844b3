"""When a training run ends before its last step: it no longer gets better, or it goes wrong."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ratchet.schemas.events import Closed

Watched = Literal["loss", "preference_accuracy"]
EVALUATIONS = 10
"""With early stopping, where nothing else is said."""


class Stopping(Closed):
    """The part of a recipe that says when a run stops."""

    early_stopping: Watched | None = None
    """What is watched on held-out rows; the run ends where it no longer gets better, and its best step is what is kept.

    None: it goes to its last step. preference_accuracy is of pairs, so of dpo alone.
    """
    patience: Annotated[int, Field(ge=1)] = 3
    """Of early stopping: so many evaluations in a row that are no better than the best end the run."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of early stopping: less of a difference than this is no better."""
    evaluations: Annotated[int, Field(ge=0, le=1000)] | None = None
    """How often held-out rows are measured in a run; None: 10 times with early stopping, else only before and after."""
    collapse_nats: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """Of dpo and kto: the better answers may lose so many nats a token of likelihood; 0: ever so many."""
    collapse_logs: Annotated[int, Field(ge=1)] = 5
    """Of dpo and kto: so many progress lines in a row beyond that end the run."""
    still_logs: Annotated[int, Field(ge=0)] = 10
    """Of dpo and kto: so many progress lines in a row with rewards of exactly 0 end the run; 0: none do."""

    @property
    def measured(self) -> int:
        """How often held-out rows are measured in a run."""
        if self.evaluations is None:
            return EVALUATIONS if self.early_stopping else 0
        return self.evaluations

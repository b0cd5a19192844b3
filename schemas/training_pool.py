"""Training at a provider: what a task may say of it; everything else is the provider's to choose."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.schemas.events import Closed


class ManagedRecipe(Closed):
    """Hyperparameters of a provider's job; None leaves one to the provider."""

    n_epochs: Annotated[int, Field(ge=1, le=50)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    learning_rate_multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    beta: Annotated[float, Field(gt=0, le=2)] | None = Field(None, description="DPO alone")
    suffix: Annotated[str, Field(max_length=64)] | None = Field(None, description="of the model's name there; the task")

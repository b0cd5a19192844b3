"""What tokens cost: a pure function of their counts and a price.

Unknown is None and never 0: without a price, and without token counts. Floats are enough: a price times
a count has sixteen digits, and a sum over a billion calls keeps seven.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.schemas.events import Closed


class Price(Closed):
    """What a model's tokens cost, in USD a million. Both are named: a price that is not known is not 0."""

    prompt_per_million: Annotated[float, Field(ge=0)]
    completion_per_million: Annotated[float, Field(ge=0)]


def cost_usd(price: Price | None, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Price a call, or many calls of one price together.

    Args:
        price: None where there is none.
        prompt_tokens: what was read.
        completion_tokens: what was written. A model that answers reads at least one token, so
            no tokens of either kind means that nobody counted them.

    Returns:
        USD, or None where it is not known.
    """
    if price is None or not (prompt_tokens or completion_tokens):
        return None
    return (price.prompt_per_million * prompt_tokens + price.completion_per_million * completion_tokens) / 1e6

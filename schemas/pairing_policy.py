"""Which feedback, and what else users and judges show, becomes preference pairs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, get_args

from pydantic import Field

from ratchet.schemas.events import Closed, Instant

AtLeastOne = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, le=1)]
PairSource = Literal["correction", "preference", "thumb", "rating", "outcome", "regeneration", "shadow"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WEIGHTS: dict[PairSource, float] = dict.fromkeys(get_args(PairSource), 1.0) | {"regeneration": 0.5, "shadow": 0.5}


class PairingPolicy(Closed):
    """What is held out, whose votes count, and how far what nobody voted for is believed."""

    holdout: Share = 0.1
    """The share of conversations that is held out, by a hash of each; 0.1 to 0.2 is usual."""
    holdout_by: Literal["conversation", "time"] = "conversation"
    """``time`` holds out the latest conversations instead: what a model will meet next."""
    holdout_since: Instant | None = None
    """With ``time``: from when on; unset, each build chooses it so that ``holdout`` of the conversations follow."""
    max_pairs_per_user: AtLeastOne = 50
    min_chars: int = 1
    max_chars: int = 20_000
    weights: dict[PairSource, Weight] = Field(default_factory=dict)
    """How much a pair of a source counts in training, over the defaults: 1, and ½ where nobody said so."""
    regenerations: bool = True
    """The answer that a conversation went on with is chosen over one to the same prompt that was asked for again."""
    regeneration_window_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    """From the first answer to the one that was kept."""
    outcomes: bool = True
    """Of two answers to the same prompt, the one whose task succeeded is chosen over one whose task failed."""
    ratings: bool = True
    """Likewise of one rated at least ``good_rating`` over one rated at most ``bad_rating``."""
    good_rating: Share = 0.75
    bad_rating: Share = 0.25
    judged: Literal["trusted", "always", "off"] = "trusted"
    """Shadow answers that a judge compared with production's in both orders; ``trusted``: once people's labels say that
    this judge may gate."""
    min_judge_confidence: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """The judge's probability of its own word; one that gives none is not sure."""

    @property
    def since_us(self) -> int | None:
        """From when on all is held out, in microseconds since 1970; None: a hash of the conversation decides."""
        if self.holdout_by != "time" or self.holdout_since is None:
            return None
        return (self.holdout_since - _EPOCH) // timedelta(microseconds=1)

    def weight(self, source: PairSource) -> float:
        """How much a pair of this source counts."""
        return self.weights.get(source, WEIGHTS[source])

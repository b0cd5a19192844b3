"""What a run says of held-out rows before and after, by its method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ratchet.schemas.training_policy import ONLINE, Recipe
from ratchet.trainers.preference_accuracy import accuracy, completion_logps, score
from ratchet.trainers.training import grpo, reward


def held_out(
    recipe: Recipe, model: Any, tokenizer: Any, rows: Sequence[Any], when: str, rewarded: Sequence[grpo.Reward] = ()
) -> dict[str, Any]:
    """Measure a model on held-out rows.

    Args:
        recipe: the method and its settings.
        model: as it is now.
        tokenizer: its tokenizer.
        rows: encoded as the method's own.
        when: ``before`` or ``after``, the end of the figures' names.
        rewarded: what rewards the answers of grpo and rloo.

    Returns:
        For dpo ``holdout_…`` and ``holdout_…_per_token``, the preference accuracy; for reward ``holdout_after``, how
        often the better answer is rewarded more (before, its head is a random one); for grpo and rloo ``rewards_…``,
        see `grpo.held_out`; for sft and kto ``perplexity_…`` of the answers that are wanted. Empty without rows.
    """
    if not rows:
        return {}
    match recipe.method:
        case "dpo":
            scores = score(model, rows)
            return {
                f"holdout_{when}": accuracy(scores),
                f"holdout_{when}_per_token": accuracy(scores, length_normalised=True),
            }
        case "reward":
            return {f"holdout_{when}": reward.reward_accuracy(model, rows)} if when == "after" else {}
        case method if method in ONLINE:
            return {f"rewards_{when}": grpo.held_out(model, tokenizer, rows, rewarded, recipe)}
    wanted = [(row.prompt_ids, row.completion_ids) for row in rows if row.label]
    if not wanted:
        return {}
    tokens = sum(len(completion) for _, completion in wanted)
    return {f"perplexity_{when}": math.exp(-sum(completion_logps(model, wanted, 16)) / tokens)}

"""What a run says of held-out rows before and after, and at points of it, by its method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import ONLINE, Recipe
from ratchet.trainers.preference_accuracy import accuracy, completion_logps, score
from ratchet.trainers.training import grpo, reward

TOLD = {
    "eval_loss": "eval_loss",
    "eval_rewards/accuracies": "eval_reward_accuracy",
    "eval_rewards/margins": "eval_reward_margin",
}
"""What TRL's evaluation gives, and what a progress line calls it."""


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
    loss = _loss(model, rows)
    return {} if loss is None else {f"perplexity_{when}": math.exp(loss)}


def during(trainer: Any, recipe: Recipe, rows: Sequence[Any]) -> dict[str, float]:
    """Measure held-out rows in the middle of a run: ``eval_loss``, and what else a progress line has of the method.

    The loss is the one that is trained; of sft it is the mean over all tokens, and ``perplexity`` its exponential.

    Raises:
        TrainingError: the loss is no finite number.
    """
    model, was_training = trainer.model, trainer.model.training
    figures: dict[str, float] = {}
    match recipe.method:
        case "sft":
            if (loss := _loss(model, rows)) is not None:
                figures = {"eval_loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        case "reward":
            figures = reward.held_out_loss(model, rows)
        case _:
            found = trainer.evaluate()
            figures = {ours: float(found[theirs]) for theirs, ours in TOLD.items() if theirs in found}
            if recipe.early_stopping == "preference_accuracy":
                figures["eval_preference_accuracy"] = accuracy(score(model, rows))["rate"]
    model.train(was_training)
    if not math.isfinite(figures.get("eval_loss", 0.0)):
        raise TrainingError(f"the held-out loss is {figures['eval_loss']}: the run stopped")
    return figures


def _loss(model: Any, rows: Sequence[Any]) -> float | None:
    """Mean negative log-probability (nats) of a token of the wanted answers; None where none is wanted."""
    wanted = [(row.prompt_ids, row.completion_ids) for row in rows if row.label]
    if not wanted:
        return None
    tokens = sum(len(completion) for _, completion in wanted)
    return -sum(completion_logps(model, wanted, 16)) / tokens

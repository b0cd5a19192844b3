"""Reward models: one number for an answer, learned from pairs, and what it says of other answers.

Source: Ouyang et al., "Training language models to follow instructions with human feedback" (2022), eq. 1: the loss is
-log σ(r(better) - r(worse)). The loop is TRL's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.preference_accuracy import PreferenceAccuracy
from ratchet.trainers.training.encoding import EncodedPair, batches_by_length
from ratchet.trainers.training.model import dtype


def trainer(recipe: Recipe, rows: Sequence[EncodedPair], arguments: dict[str, Any], parts: dict[str, Any]) -> Any:
    """TRL's trainer over pairs of token ids; arguments as in `methods`."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    dataset = Dataset.from_list(
        [
            {"chosen_ids": row.prompt_ids + row.chosen_ids, "rejected_ids": row.prompt_ids + row.rejected_ids}
            for row in rows
        ]
    )
    return RewardTrainer(args=RewardConfig(max_length=recipe.max_length, **arguments), train_dataset=dataset, **parts)


def load_reward_model(base_model: Path, adapter: Path, tokenizer: Any, recipe: Recipe) -> Any:
    """Load a reward model that method ``reward`` made: the base model's body, the adapter and its head.

    Args:
        base_model: folder of the model that it was trained on.
        adapter: its folder.
        tokenizer: the base model's, its padding set by `model.pad_beside_end`.
        recipe: of the run that asks it, which says in what dtype.
    """
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    body = AutoModelForSequenceClassification.from_pretrained(str(base_model), num_labels=1, dtype=dtype(recipe))
    body.config.pad_token_id = tokenizer.pad_token_id
    return PeftModel.from_pretrained(body, str(adapter)).eval()


def rewards(model: Any, sequences: Sequence[list[int]], batch_size: int = 16) -> list[float]:
    """What a reward model says of each sequence of prompt and answer, as token ids."""
    import torch

    was_training = model.training
    model.eval()
    pad = model.config.pad_token_id
    found = [0.0] * len(sequences)
    with torch.inference_mode():
        for batch in batches_by_length([len(ids) for ids in sequences], batch_size):
            width = max(len(sequences[index]) for index in batch)
            ids = torch.tensor([sequences[index] + [pad] * (width - len(sequences[index])) for index in batch])
            mask = torch.tensor([[1] * len(sequences[i]) + [0] * (width - len(sequences[i])) for i in batch])
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
            for index, value in zip(batch, logits[:, 0].float().tolist(), strict=True):
                found[index] = value
    model.train(was_training)
    return found


def reward_accuracy(model: Any, pairs: Sequence[EncodedPair]) -> PreferenceAccuracy:
    """How many pairs have their better answer rewarded more; a tie counts as wrong."""
    k = sum(margin > 0 for margin in _margins(model, pairs))
    low, high = wilson(k, len(pairs))
    return {"n": len(pairs), "k": k, "rate": k / len(pairs), "low": low, "high": high}


def held_out_loss(model: Any, pairs: Sequence[EncodedPair]) -> dict[str, float]:
    """The mean loss of pairs (`eval_loss`, eq. 1) and how many are in the right order (`eval_preference_accuracy`)."""
    margins = _margins(model, pairs)
    losses = [math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0) for margin in margins]
    return {
        "eval_loss": sum(losses) / len(losses),
        "eval_preference_accuracy": sum(margin > 0 for margin in margins) / len(margins),
    }


def _margins(model: Any, pairs: Sequence[EncodedPair]) -> list[float]:
    """By how much the better answer of each pair is rewarded more."""
    sequences = [pair.prompt_ids + ids for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    found = rewards(model, sequences)
    return [better - worse for better, worse in zip(found[::2], found[1::2], strict=True)]

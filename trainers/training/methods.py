"""TRL's trainer of each method, told that its rows are token ids already.

Sources: Rafailov et al., "Direct Preference Optimization" (2023); the supervised term beside it ("sft") as in RPO
and in Llama 3's recipe, which keeps the better answer from losing likelihood together with the worse one;
Ethayarajh et al., "KTO" (2024). The loops and the losses are TRL's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ratchet.schemas.training_policy import ONLINE, Recipe
from ratchet.trainers.training import grpo, reward
from ratchet.trainers.training.encoding import (
    EncodedExample,
    EncodedPair,
    Packed,
    encode_examples,
    encode_pairs,
    encode_prompts,
)
from ratchet.trainers.training.model import adapter, refuse_leaks


def trainer(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Any],
    arguments: dict[str, Any],
    callbacks: list[Any],
    rewarded: Sequence[grpo.Reward] = (),
    held: Sequence[Any] = (),
) -> Any:
    """The trainer of a recipe's method over what the recipe trains.

    Args:
        recipe: the method and its settings.
        model: the base model, loaded.
        tokenizer: its tokenizer.
        rows: `EncodedPair`s for dpo and reward, `EncodedExample`s for sft and kto, `EncodedPrompt`s for grpo and rloo.
        arguments: of ``transformers.TrainingArguments``.
        callbacks: of the run.
        rewarded: what rewards the answers of grpo and rloo.
        held: held-out rows of the same kind.
    """
    from datasets import Dataset

    if recipe.optimizer != "adamw":
        arguments = arguments | {"optim": recipe.optimizer}
    parts: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "callbacks": callbacks,
        "peft_config": None if recipe.accelerator else adapter(recipe),  # an accelerator has its own layers
    }
    measured = recipe.measured and held
    match recipe.method:
        case "dpo":
            parts["eval_dataset"] = Dataset.from_list(pairs(held)) if measured else None
            return _dpo(recipe, Dataset.from_list(pairs(rows)), arguments, parts)
        case "kto":
            parts["eval_dataset"] = Dataset.from_list(examples(held, recipe.batch_size)) if measured else None
            return _kto(recipe, Dataset.from_list(examples(rows, recipe.batch_size)), arguments, parts)
        case "sft":
            return _sft(recipe, Dataset.from_list(sequences(rows)), arguments, parts)
        case "reward":
            return reward.trainer(recipe, rows, arguments, parts)
        case "grpo" | "rloo":
            return grpo.trainer(recipe, rows, rewarded, arguments, parts)


def encoder(recipe: Recipe) -> Callable[[Any, Sequence[Any], int], tuple[list[Any], list[Any]]]:
    """What makes a method's rows token ids, and leaves out those that do not fit; also a run's `held_out` rows."""
    match recipe.method:
        case "dpo" | "reward":
            return encode_pairs
        case "sft" | "kto":
            return encode_examples
        case "grpo" | "rloo":
            return lambda tokenizer, rows, length: encode_prompts(
                tokenizer, rows, length - recipe.max_completion_length
            )


def steps(recipe: Recipe, n: int) -> int:
    """Steps of a run over so many rows; each prompt of grpo and rloo fills as many places as it gets answers."""
    places = n * (recipe.num_generations if recipe.method in ONLINE else 1)
    processes = recipe.distributed.processes if recipe.distributed else 1
    at_once = recipe.batch_size * recipe.gradient_accumulation * processes
    return max(1, math.ceil(math.ceil(places / at_once) * recipe.epochs))


def pairs(rows: Sequence[EncodedPair]) -> list[dict[str, Any]]:
    """Rows as TRL's DPO trainer takes them."""
    return [
        {"prompt_ids": row.prompt_ids, "chosen_ids": row.chosen_ids, "rejected_ids": row.rejected_ids} for row in rows
    ]


def examples(rows: Sequence[EncodedExample], batch_size: int) -> list[dict[str, Any]]:
    """Rows as TRL's KTO trainer takes them: each with its neighbour's answer in the same batch, for the KL estimate."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        for place, row in enumerate(batch):
            one = {"prompt_ids": row.prompt_ids, "completion_ids": row.completion_ids, "label": row.label}
            found.append(one | {"KL_completion_ids": batch[place - 1].completion_ids})
    return found


def wanted_tokens(rows: Sequence[Any]) -> float:
    """Mean length, in tokens, of the answers of dpo and kto that are wanted; at least 1."""
    lengths = [
        len(row.chosen_ids) if isinstance(row, EncodedPair) else len(row.completion_ids)
        for row in rows
        if isinstance(row, EncodedPair) or (isinstance(row, EncodedExample) and row.label)
    ]
    return max(1.0, sum(lengths) / max(1, len(lengths)))


def sequences(rows: Sequence[EncodedExample | Packed]) -> list[dict[str, Any]]:
    """Rows as TRL's SFT trainer takes them: the prompt's tokens are seen, and not learned (label -100)."""
    return [_packed(row.rows) if isinstance(row, Packed) else _sequence(row) for row in rows]


def _sequence(row: EncodedExample) -> dict[str, Any]:
    return {
        "input_ids": row.prompt_ids + row.completion_ids,
        "labels": [-100] * len(row.prompt_ids) + row.completion_ids,
    }


def _packed(rows: Sequence[EncodedExample]) -> dict[str, Any]:
    """One sequence of several rows; TRL's collator numbers the positions of each from 0, which keeps them apart."""
    parts = [_sequence(row) for row in rows]
    joined = {name: [one for part in parts for one in part[name]] for name in ("input_ids", "labels")}
    return joined | {"seq_lengths": [len(part["input_ids"]) for part in parts]}


def balanced(recipe: Recipe, labels: Sequence[bool]) -> tuple[float, float]:
    """Weights of wanted and unwanted rows: the recipe's, or such that both sides count alike.

    The larger side keeps 1, the smaller gets the ratio of the counts (the lower end of eq. 8 of the KTO paper).
    """
    wanted = sum(labels)
    unwanted = len(labels) - wanted
    ratio = max(1, unwanted) / max(1, wanted)
    return (
        recipe.desirable_weight or max(1.0, ratio),
        recipe.undesirable_weight or max(1.0, 1 / ratio),
    )


def _dpo(recipe: Recipe, dataset: Any, arguments: dict[str, Any], parts: dict[str, Any]) -> Any:
    from trl import DPOConfig, DPOTrainer

    class EncodedDPOTrainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    config = DPOConfig(
        beta=recipe.beta,
        loss_type=list(recipe.loss_type),
        loss_weights=list(recipe.loss_weights),
        label_smoothing=recipe.label_smoothing,
        max_length=recipe.max_length,
        precompute_ref_log_probs=recipe.precompute_reference,
        **arguments,
    )
    return EncodedDPOTrainer(args=config, train_dataset=dataset, **parts)


def _kto(recipe: Recipe, dataset: Any, arguments: dict[str, Any], parts: dict[str, Any]) -> Any:
    from trl import KTOConfig, KTOTrainer

    class EncodedKTOTrainer(KTOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    desirable, undesirable = balanced(recipe, dataset["label"])
    config = KTOConfig(
        beta=recipe.beta,
        loss_type=recipe.kto_loss,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
        max_length=recipe.max_length,
        precompute_ref_log_probs=recipe.precompute_reference,
        **arguments,
    )
    return EncodedKTOTrainer(args=config, train_dataset=dataset, **parts)


def _sft(recipe: Recipe, dataset: Any, arguments: dict[str, Any], parts: dict[str, Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    if recipe.packing:
        refuse_leaks(parts["model"])
    config = SFTConfig(
        max_length=recipe.max_length,
        packing=recipe.packing,
        packing_strategy="bfd",
        dataset_kwargs={"skip_prepare_dataset": True},
        **arguments,
    )
    return SFTTrainer(args=config, train_dataset=dataset, **parts)

"""Held-out preference accuracy: how often a model finds the better answer likelier than the worse.

It needs no generation and no judge, only forward passes, so it is cheap enough to measure
before and after every training run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.errors import DatasetError
from ratchet.trainers.training.encoding import EncodedPair, batches_by_length, encode_pairs
from ratchet.trainers.training.job import PreferenceRow


class PreferenceAccuracy(TypedDict):
    """``k`` of ``n`` pairs in the right order, with Wilson's 95% interval of the rate."""

    n: int
    k: int
    rate: float
    low: float
    high: float


def preference_accuracy(
    model_dir: Path,
    adapter_dir: Path | None,
    rows: Sequence[PreferenceRow],
    *,
    length_normalised: bool = False,
    batch_size: int = 16,
    max_length: int = 512,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
) -> PreferenceAccuracy:
    """Load a model, with an adapter or without, and measure its preference accuracy.

    Args:
        model_dir: Hugging Face folder of the base model.
        adapter_dir: PEFT folder, or None for the base model alone.
        rows: pairs the model was not trained on.
        length_normalised: compare log-probabilities per token instead of per answer, which
            takes away the advantage of short answers.
        batch_size: sequences in one forward pass.
        max_length: the most tokens of prompt and completion; longer better answers are left out.
        dtype: of the weights.

    Raises:
        DatasetError: no row fits.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
    model = AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=getattr(torch, dtype))
    if adapter_dir is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter_dir))
    encoded, _ = encode_pairs(tokenizer, rows, max_length)
    return accuracy(score(model, encoded, batch_size), length_normalised=length_normalised)


@dataclass(frozen=True, slots=True)
class PairScores:
    """One pair under one model: log-probability (nats) and length (tokens) of both answers."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int


def score(model: Any, pairs: Sequence[EncodedPair], batch_size: int = 16) -> list[PairScores]:
    """Score both answers of every pair with a loaded model."""
    sequences = [(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    logps = completion_logps(model, sequences, batch_size)
    return [
        PairScores(chosen, rejected, max(1, len(pair.chosen_ids)), max(1, len(pair.rejected_ids)))
        for pair, chosen, rejected in zip(pairs, logps[::2], logps[1::2], strict=True)
    ]


def accuracy(scores: Sequence[PairScores], *, length_normalised: bool = False) -> PreferenceAccuracy:
    """Count the pairs whose better answer is likelier; a tie counts as wrong.

    Raises:
        DatasetError: there are no pairs.
    """
    if not scores:
        raise DatasetError("no pair is left to measure preference accuracy on")
    if length_normalised:
        k = sum(one.chosen / one.chosen_tokens > one.rejected / one.rejected_tokens for one in scores)
    else:
        k = sum(one.chosen > one.rejected for one in scores)
    low, high = wilson(k, len(scores))
    return {"n": len(scores), "k": k, "rate": k / len(scores), "low": low, "high": high}


def completion_logps(model: Any, sequences: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[float]:
    """Sum the log-probabilities of each completion's tokens given its prompt, in nats."""
    import torch

    was_training = model.training
    model.eval()
    scores = [0.0] * len(sequences)
    with torch.inference_mode():
        for batch in batches_by_length([len(prompt) + len(ids) for prompt, ids in sequences], batch_size):
            width = max(len(sequences[index][0]) + len(sequences[index][1]) for index in batch)
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            scored = torch.zeros((len(batch), width), dtype=torch.bool)
            for row, index in enumerate(batch):
                prompt, completion = sequences[index]
                length = len(prompt) + len(completion)
                ids[row, :length] = torch.tensor(prompt + completion)
                mask[row, :length] = 1
                scored[row, len(prompt) : length] = True
            ids, mask, scored = (tensor.to(model.device) for tensor in (ids, mask, scored))
            # positions that prompt tuning puts before the prompt have logits too
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -width:][:, :-1]
            wanted = scored[:, 1:]
            # Only the completions' positions are normalised: the vocabulary is wide and prompts are long.
            logps = torch.log_softmax(logits[wanted].float(), dim=-1)
            chosen = logps.gather(1, ids[:, 1:][wanted].unsqueeze(1)).squeeze(1)
            owner = torch.arange(len(batch), device=model.device).unsqueeze(1).expand_as(wanted)[wanted]
            sums = torch.zeros(len(batch), device=model.device).index_add_(0, owner, chosen)
            for row, index in enumerate(batch):
                scores[index] = float(sums[row])
    model.train(was_training)
    return scores

"""Held-out preference accuracy: how often a model finds the better answer likelier than the worse.

It needs no generation and no judge, only forward passes, so it is cheap enough to measure
before and after every training run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.errors import DatasetError
from ratchet.trainers.dpo_job import PreferenceRow
from ratchet.trainers.encoding import EncodedPair, batches_by_length, encode_pairs


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
    return measure(model, encoded, length_normalised=length_normalised, batch_size=batch_size)


def measure(
    model: Any, pairs: Sequence[EncodedPair], *, length_normalised: bool = False, batch_size: int = 16
) -> PreferenceAccuracy:
    """Measure the preference accuracy of a loaded model; a tie counts as wrong.

    Raises:
        DatasetError: there are no pairs.
    """
    if not pairs:
        raise DatasetError("no pair is left to measure preference accuracy on")
    sequences = [(pair.prompt_ids, ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
    scores = completion_logps(model, sequences, batch_size)
    if length_normalised:
        scores = [score / max(1, len(ids)) for score, (_, ids) in zip(scores, sequences, strict=True)]
    k = sum(better > worse for better, worse in zip(scores[::2], scores[1::2], strict=True))
    low, high = wilson(k, len(pairs))
    return {"n": len(pairs), "k": k, "rate": k / len(pairs), "low": low, "high": high}


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
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
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

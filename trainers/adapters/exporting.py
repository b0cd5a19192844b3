"""A whole model for Ollama and llama.cpp: GGUF with a Modelfile, read back before anybody gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratchet.schemas.errors import TrainingError
from ratchet.trainers.adapters import gguf_file
from ratchet.trainers.adapters.checking import agreement, logits, prompts
from ratchet.trainers.adapters.gguf_file import QUANTIZATIONS, Quantization
from ratchet.trainers.adapters.merging import appearing, seal
from ratchet.trainers.adapters.modelfile import modelfile


def export_gguf(
    model: Path,
    out: Path,
    name: str,
    quantization: Quantization,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    system_prompt: str | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a model as GGUF with its Modelfile, read it back, and hold it to the model that it was made of.

    Args:
        model: Hugging Face folder of the whole model.
        out: the folder to make; it appears whole or not at all.
        name: of the adapter.
        quantization: of the matrices.
        conversations: what the two are compared on.
        system_prompt: the task's.
        facts: for the manifest.

    Returns:
        The manifest, as `merging.merge` gives one.

    Raises:
        TrainingError: what cannot be written or answers otherwise; see `gguf_file.write` and `modelfile`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    if quantization not in QUANTIZATIONS:
        raise TrainingError(f"quantization {quantization!r}; allowed: {', '.join(QUANTIZATIONS)}")
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    file = f"{name.replace('@', '-')}-{quantization}.gguf"
    text = modelfile(file, tokenizer, system_prompt)
    sequences = prompts(tokenizer, conversations)
    with appearing(out) as scratch:
        gguf_file.write(model, scratch / file, name, quantization)
        (scratch / "Modelfile").write_text(text, encoding="utf-8")
        reference = logits(AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32), sequences)
        read = AutoModelForCausalLM.from_pretrained(
            str(scratch), gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        found = agreement(reference, logits(read, sequences))
        allowed = gguf_file.TOLERANCES[quantization]
        found.refuse_beyond(allowed, f"{file}: the file answers otherwise than the model")
        _refuse_other_tokens(AutoTokenizer.from_pretrained(str(scratch), gguf_file=file), tokenizer, sequences)
        checked = asdict(found) | {"allowed": asdict(allowed)}
        return seal(scratch, {**facts, "format": "gguf", "quantization": quantization, "checked": checked})


def _refuse_other_tokens(read: Any, tokenizer: Any, sequences: Sequence[Sequence[int]]) -> None:
    """A file whose tokenizer cuts texts otherwise gives the model prompts that it never saw."""
    for ids in sequences:
        text = tokenizer.decode(ids)
        ours, theirs = (one(text, add_special_tokens=False)["input_ids"] for one in (tokenizer, read))
        if ours != theirs:
            raise TrainingError(
                f"the file's tokenizer makes {len(theirs)} other tokens of {text[:80]!r} than the model's"
            )

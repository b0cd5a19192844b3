"""What a training leaves, by what was trained: which file has the weights, and who can serve them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"
WEIGHTS_FILES = (ADAPTER_WEIGHTS, MODEL_WEIGHTS)
MODEL_CONFIG = "config.json"
MODEL_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Beside weights and configuration of a whole model, as transformers writes them; which, depends on the tokenizer."""

HOT_LOADED = ("lora",)
"""What vLLM loads beside its base model while it serves (vLLM 0.32, ``PEFTHelper``): LoRA, rank-stabilized or not."""
MERGED = ("lora", "dora", "ia3")
"""What can be added into the base model's weights, so that a pool of its own serves the whole."""


def unservable(params: Mapping[str, Any]) -> str | None:
    """Why model servers cannot load beside their base model what a recipe leaves, and what to do; None: they can.

    Args:
        params: of a recipe; a provider's, which serves what it trained, has no ``adapter_type``.
    """
    kind = params.get("adapter_type", "lora")
    if kind in HOT_LOADED:
        return None
    if kind == "full":
        return "adapter_type 'full' is a whole model, which no server loads beside its base model: serve it by a pool"
    then = "merge it into its base model" if kind in MERGED else "it is for transformers alone"
    return f"adapter_type {kind!r} is not loaded by vLLM, which takes {', '.join(map(repr, HOT_LOADED))}: {then}"

"""The model of a run: the base model as it is loaded, what is trained of it, and how that is saved.

Sources: Hu et al., "LoRA" (2021); Dettmers et al., "QLoRA" (2023): NF4 with double quantization; Kalajdzievski,
"rsLoRA" (2023); Liu et al., "DoRA" (2024); Liu et al., "(IA)3" (2022); Li and Liang, "Prefix-Tuning" (2021); Lester et
al., "Prompt Tuning" (2021). The layers are PEFT's.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.rules.weights import WEIGHTS_FILES

ONE_FILE = "999TB"
"""Weights are saved in one file: its hash is the model's name."""


def load_tokenizer(folder: Path, recipe: Recipe) -> Any:
    """Load a base model's tokenizer, padding as the recipe's method needs it.

    Raises:
        TrainingError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise TrainingError(f"the base model at {folder} cannot be loaded: {error}") from error
    if recipe.method == "reward":
        pad_beside_end(tokenizer)
    return tokenizer


def load(folder: Path, recipe: Recipe) -> Any:
    """Load a base model; its weights have the dtype of `dtype`, or are quantized and computed with in it.

    Raises:
        TrainingError: it cannot be loaded, or not as the recipe asks for.
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        BitsAndBytesConfig,
        set_seed,
    )

    if recipe.accelerator == "unsloth":
        return _by_unsloth(folder, recipe)
    wanted = dtype(recipe)
    how: dict[str, Any] = {"dtype": wanted}
    if recipe.quantization == "nf4":
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=wanted,
        )
        # quantized weights are made where they stay; others are moved by the trainer
        how["device_map"] = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    try:
        if recipe.method == "reward":
            set_seed(recipe.seed)  # its head begins at random
            return AutoModelForSequenceClassification.from_pretrained(str(folder), num_labels=1, **how)
        return AutoModelForCausalLM.from_pretrained(str(folder), **how)
    except (OSError, ValueError) as error:
        raise TrainingError(f"the base model at {folder} cannot be loaded: {error}") from error
    except ImportError as error:
        raise TrainingError(f"quantization {recipe.quantization!r}: {error}; allowed: with bitsandbytes") from error


def _by_unsloth(folder: Path, recipe: Recipe) -> Any:
    """Load a base model with Unsloth's kernels and its own LoRA layers.

    Raises:
        TrainingError: it is not installed, or there is no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise TrainingError("accelerator 'unsloth': this machine has no GPU; allowed: on one, or no accelerator")
    try:
        from unsloth import FastLanguageModel
    except ImportError:
        raise TrainingError("accelerator 'unsloth' is not installed; `pip install unsloth` installs it") from None
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=recipe.max_length,
        dtype=dtype(recipe),
        load_in_4bit=recipe.quantization == "nf4",
    )
    return FastLanguageModel.get_peft_model(
        model,
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.lora_targets,
        use_rslora=recipe.rslora,
        use_gradient_checkpointing="unsloth" if recipe.gradient_checkpointing else False,
        random_state=recipe.seed,
    )


def pad_beside_end(tokenizer: Any) -> None:
    """Have a tokenizer pad with another token than the end of turn.

    A reward is read at the last token that is no padding. Where the end of turn pads, as it does in many chat
    models, that would be the token before it, and an answer that ends would look like one that was cut.
    """
    others = (token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token)
    tokenizer.pad_token = next(others, tokenizer.pad_token)


def dtype(recipe: Recipe) -> Any:
    """Choose the weights' dtype; on a CPU without AMX tiles float32 trained 1.8 times as fast as bfloat16."""
    import torch

    wanted: str = recipe.dtype
    if wanted == "auto":
        fast = torch.cuda.is_available() or torch.cpu._is_amx_tile_supported()
        wanted = "bfloat16" if fast and recipe.adapter_type != "full" else "float32"
    return getattr(torch, wanted)


def adapter(recipe: Recipe) -> Any | None:
    """PEFT's configuration of what is trained; None where it is every weight of the model."""
    from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig

    match recipe.adapter_type:
        case "lora" | "dora":
            return LoraConfig(
                r=recipe.lora_r,
                lora_alpha=recipe.lora_alpha,
                lora_dropout=recipe.lora_dropout,
                target_modules=recipe.lora_targets,
                use_rslora=recipe.rslora,
                use_dora=recipe.adapter_type == "dora",
                # with the head of a reward model, which is trained whole
                task_type="SEQ_CLS" if recipe.method == "reward" else "CAUSAL_LM",
            )
        case "ia3":
            # keys, values and the inner activations of the feed-forward layers: PEFT knows their names by architecture
            return IA3Config(task_type="CAUSAL_LM")
        case "prefix":
            return PrefixTuningConfig(num_virtual_tokens=recipe.virtual_tokens, task_type="CAUSAL_LM")
        case "prompt":
            return PromptTuningConfig(num_virtual_tokens=recipe.virtual_tokens, task_type="CAUSAL_LM")
        case "full":
            return None


def refuse_leaks(model: Any) -> None:
    """See that a row in a packed sequence does not see the row before it.

    Most models tell rows apart by positions that begin again from 0; one that does not (a state that is carried on,
    positions counted from the mask) would learn from its neighbours.

    Raises:
        TrainingError: it sees them.
    """
    import torch

    was_training, n = model.training, 8
    model.eval()
    vocabulary = model.config.get_text_config().vocab_size
    before, other, row = (torch.arange(start, start + n) % vocabulary for start in (1, 1 + n, 1 + 2 * n))
    positions = torch.arange(n).repeat(2)[None].to(model.device)

    def logits(first: Any) -> Any:
        ids = torch.cat([first, row])[None].to(model.device)
        return model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, n:].float()

    with torch.inference_mode():
        one, two = logits(before), logits(other)
    model.train(was_training)
    if float((one - two).abs().max()) > 1e-4 * float(one.abs().max()):
        raise TrainingError(
            f"packing: in a {type(model).__name__} with attention {model.config._attn_implementation!r} a row sees the "
            "row before it in its sequence; allowed: packing = false"
        )


def base_alone(model: Any) -> AbstractContextManager[Any]:
    """The base model without what is trained beside it; of a whole model that is only true before the first step."""
    disabled = getattr(model, "disable_adapter", None)
    return disabled() if disabled is not None else nullcontext()


def save(model: Any, tokenizer: Any, folder: Path, state: Any = None) -> str:
    """Write what was trained as safetensors, a whole model with its tokenizer, and give its SHA-256 in hex.

    Raises:
        TrainingError: it was not written as one file of a known name.
    """
    whole = not hasattr(model, "peft_config")
    how: dict[str, Any] = {"state_dict": state} if state is not None else {}
    model.save_pretrained(
        str(folder), safe_serialization=True, **how, **({"max_shard_size": ONE_FILE} if whole else {})
    )
    if whole:
        tokenizer.save_pretrained(str(folder))
    found = [folder / name for name in WEIGHTS_FILES if (folder / name).is_file()]
    if len(found) != 1:
        raise TrainingError(f"{folder}: {len(found)} of {', '.join(WEIGHTS_FILES)} were written; one is expected")
    with found[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

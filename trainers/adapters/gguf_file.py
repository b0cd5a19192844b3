"""A merged model as one GGUF file, the format of llama.cpp and Ollama.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Names and metadata are those of the ``llama``
architecture there; queries and keys are stored in the order in which ggml rotates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from ratchet.schemas.errors import TrainingError
from ratchet.trainers.adapters.checking import Tolerance

Quantization = Literal["f16", "q8_0"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
ARCHITECTURES = ("LlamaForCausalLM",)
TOLERANCES: dict[str, Tolerance] = {
    "f16": Tolerance(logit=0.1, argmax=0.98),
    "q8_0": Tolerance(logit=2.5, argmax=0.9),
}
"""Of the file against the folder it was made from; docs/experiments.md has what was measured."""
_LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def write(model: Path, file: Path, name: str, quantization: Quantization) -> None:
    """Write the GGUF file of a Hugging Face folder.

    Args:
        model: the folder: safetensors, configuration, tokenizer.
        file: to write.
        name: what the file says that it is.
        quantization: of the matrices; norms stay float32.

    Raises:
        TrainingError: an architecture, a tokenizer or a rotary scaling that this cannot write; weights beyond float16.
    """
    import gguf
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(str(model))
    _refuse(config)
    writer = gguf.GGUFWriter(str(file), "llama")
    try:
        _describe(writer, config, name, quantization)
        _add_tokenizer(writer, AutoTokenizer.from_pretrained(str(model)), model)
        _add_tensors(writer, model, config, quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _refuse(config: Any) -> None:
    architecture = (config.architectures or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise TrainingError(f"{architecture} cannot be written as GGUF here; allowed: {', '.join(ARCHITECTURES)}")
    kind = _rope(config).get("rope_type", "default")
    if kind != "default":
        raise TrainingError(f"rotary scaling {kind!r} cannot be written as GGUF here; allowed: 'default'")


def _rope(config: Any) -> Mapping[str, Any]:
    rope: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {"rope_theta": 10_000.0}
    return rope


def _describe(writer: Any, config: Any, name: str, quantization: Quantization) -> None:
    import gguf

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantization == "q8_0" else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_rope_dimension_count(head)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Any, model: Path) -> None:
    """Byte-level BPE, as ``tokenizer.json`` has it."""
    core = orjson.loads((model / "tokenizer.json").read_bytes())
    kind = core["model"].get("type")
    if kind != "BPE" or core["model"].get("byte_fallback") or not core["model"].get("merges"):
        raise TrainingError(f"a tokenizer of type {kind!r} cannot be written as GGUF here; allowed: byte-level BPE")
    added = {one["id"]: one for one in core.get("added_tokens", [])}
    texts = {number: text for text, number in core["model"]["vocab"].items()}
    texts |= {number: one["content"] for number, one in added.items()}
    size = max(texts) + 1
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre(core.get("pre_tokenizer") or {}))
    # a number that no token has is still counted: the embedding has a row for it
    writer.add_token_list([texts.get(number, f"[UNUSED{number}]") for number in range(size)])
    writer.add_token_types([_token_type(added.get(number)) for number in range(size)])
    merges = core["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(False)  # the chat template says where one belongs
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _token_type(added: Mapping[str, Any] | None) -> int:
    if added is None:
        return _NORMAL
    return _CONTROL if added["special"] else _USER_DEFINED


def _pre(pre: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a text is cut before the merges."""
    steps = pre.get("pretokenizers", []) if pre.get("type") == "Sequence" else [pre]
    match [(step.get("type"), step) for step in steps]:
        case [("ByteLevel", _)]:
            return "gpt-2"
        case [("Digits", digits), ("ByteLevel", _)] if digits.get("individual_digits"):
            return "smollm"
        case [("Split", split), ("ByteLevel", _)] if str(split["pattern"].get("Regex", "")).startswith(_LLAMA_3):
            return "llama-bpe"
    kinds = " and ".join(str(step.get("type")) for step in steps)
    raise TrainingError(
        f"a tokenizer that cuts texts by {kinds} cannot be written as GGUF here; allowed: GPT-2's, SmolLM's, Llama 3's"
    )


def _add_tensors(writer: Any, model: Path, config: Any, quantization: Quantization) -> None:
    import gguf
    import torch
    from safetensors import safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for shard in sorted(model.glob("*.safetensors")):
        with safe_open(str(shard), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                if name == "lm_head.weight" and config.tie_word_embeddings:
                    continue
                target = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if target is None:
                    raise TrainingError(f"{shard}: {name} has no place in GGUF's llama architecture")
                values = tensors.get_tensor(name).to(torch.float32).numpy()
                for part, heads in ((".attn_q.", config.num_attention_heads), (".attn_k.", config.num_key_value_heads)):
                    if part in target:
                        values = _interleaved(values, heads)
                _add(writer, target, values, quantization)


def _interleaved(values: Any, heads: int) -> Any:
    """Rows of a query or key matrix from halves, as transformers rotates them, to neighbours, as ggml does."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )


def _add(writer: Any, name: str, values: Any, quantization: Quantization) -> None:
    import gguf
    import numpy as np

    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
        return
    q8 = gguf.GGMLQuantizationType.Q8_0
    if quantization == "q8_0" and values.shape[-1] % gguf.GGML_QUANT_SIZES[q8][0] == 0:
        writer.add_tensor(name, gguf.quants.quantize(values, q8), raw_dtype=q8)
        return
    half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise TrainingError(f"{name} has weights beyond float16's range; allowed: --quantization q8_0")
    writer.add_tensor(name, half)

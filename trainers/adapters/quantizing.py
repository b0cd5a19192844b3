"""Four bits for vLLM on a GPU: AWQ or GPTQ by llm-compressor, which runs in an interpreter of its own.

It asks for other versions of transformers than training does, so it is not among Ratchet's packages (docs/registry.md).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from ratchet.infra.embedded.child import last_line
from ratchet.schemas.errors import TrainingError
from ratchet.trainers.adapters import quantizer
from ratchet.trainers.adapters.merging import appearing, seal

Method = Literal["awq", "gptq"]
METHODS: tuple[Method, ...] = get_args(Method)
FEWEST_ROWS = 32
"""Conversations to calibrate on; llm-compressor's own examples take some hundreds."""
MOST_ROWS = 512
CHECK_S = 120.0


def refuse_without_gpu(method: str, python: str) -> None:
    """Refuse a quantization that cannot be made here, before anything is merged for it.

    Raises:
        TrainingError: says what is missing and what can be done instead.
    """
    if method not in METHODS:
        raise TrainingError(f"method {method!r}; allowed: {', '.join(METHODS)}")
    try:
        told = subprocess.run(
            [python, quantizer.__file__, "--check"], capture_output=True, timeout=CHECK_S, check=True, text=True
        )
        has: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError, IndexError) as error:
        raise TrainingError(f"--python {python}: it does not run ({error})") from None
    if not has["gpu"]:
        raise TrainingError(
            f"{method} needs a CUDA GPU to calibrate on, and this machine has none that {python} sees; here"
            " `ratchet adapters export --format gguf --quantization q8_0` makes a file of half the size"
        )
    if has["llmcompressor"] is None:
        raise TrainingError(
            f"{method} needs llm-compressor: pip install llmcompressor in an environment of its own, and name that"
            " environment's interpreter by --python"
        )


def quantize(
    model: Path,
    out: Path,
    method: Method,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    facts: Mapping[str, Any],
    python: str,
) -> dict[str, Any]:
    """Quantize a model, calibrated on the task's own conversations.

    Args:
        model: Hugging Face folder of the whole model.
        out: the folder to make; it appears whole or not at all.
        method: how.
        conversations: to calibrate on; at most `MOST_ROWS` are.
        facts: for the manifest.
        python: an interpreter with llm-compressor.

    Returns:
        The manifest, as `merging.merge` gives one, without ``checked``: the task's evaluation measures what it costs.

    Raises:
        TrainingError: as `refuse_without_gpu`; too few conversations; or the run ended badly.
    """
    from transformers import AutoTokenizer

    refuse_without_gpu(method, python)
    if len(conversations) < FEWEST_ROWS:
        raise TrainingError(f"{method} has {len(conversations)} conversations to calibrate on; at least {FEWEST_ROWS}")
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    rows = [list(messages) for messages in conversations[:MOST_ROWS]]
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in rows]
    with appearing(out) as scratch, tempfile.TemporaryDirectory(prefix="ratchet-quantize-") as beside:
        job, log = Path(beside) / "job.json", Path(beside) / "log"
        job.write_text(
            json.dumps({"model": str(model), "out": str(scratch), "method": method, "texts": texts}), encoding="utf-8"
        )
        with log.open("wb") as sink:
            ended = subprocess.run(
                [python, quantizer.__file__, str(job)], stdout=sink, stderr=subprocess.STDOUT, check=False
            )
        if ended.returncode:
            raise TrainingError(f"{method} ended with status {ended.returncode}: {last_line(log) or 'it said nothing'}")
        return seal(scratch, {**facts, "format": method, "calibrated_on": len(texts)})

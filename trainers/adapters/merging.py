"""Merging: an adapter added into its base model's weights, as one folder that is held to what both gave before."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from ratchet.schemas.errors import TrainingError
from ratchet.trainers.adapters.checking import Tolerance, agreement, logits, prompts
from ratchet.trainers.registry import MANIFEST, file_sha256
from ratchet.trainers.rules.weights import MERGED

TOLERANCES = {
    "float32": Tolerance(logit=1e-3, argmax=0.999),
    "float16": Tolerance(logit=0.2, argmax=0.98),
    "bfloat16": Tolerance(logit=1.0, argmax=0.95),
}
"""By the dtype that the merged weights are rounded to; docs/experiments.md has what was measured."""


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    facts: Mapping[str, Any],
    tolerances: Mapping[str, Tolerance] = TOLERANCES,
) -> dict[str, Any]:
    """Write base model and adapter as one model, in the base model's dtype.

    The sum is made in float32 and rounded once. What is compared is the folder that was written, read back, with the
    base model under the unmerged adapter, both computed in float32: the difference is what rounding took.

    Args:
        base: Hugging Face folder of the base model.
        adapter: PEFT folder.
        out: the folder to make; it appears whole or not at all.
        conversations: what the two are compared on.
        facts: for the manifest: what it is made of.
        tolerances: by dtype.

    Returns:
        The manifest: ``facts``, ``dtype``, ``checked`` (`Agreement` and the tolerance) and ``files`` with their hashes.

    Raises:
        TrainingError: the adapter is of a kind that cannot be merged, there is nothing to compare on, the merged model
            answers otherwise, or the folder cannot be written or is there already.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    kind = str(PeftConfig.from_pretrained(str(adapter)).peft_type.value).lower()
    if kind not in MERGED:
        raise TrainingError(f"an adapter of kind {kind!r} cannot be merged; allowed: {', '.join(MERGED)}")
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    sequences = prompts(tokenizer, conversations)
    dtype = str(AutoConfig.from_pretrained(str(base)).dtype or torch.float32).removeprefix("torch.")
    if dtype not in tolerances:
        raise TrainingError(f"{base}: weights of dtype {dtype}; allowed: {', '.join(tolerances)}")
    whole = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    model = PeftModel.from_pretrained(whole, str(adapter))
    reference = logits(model, sequences)
    with appearing(out) as scratch:
        merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
        merged.save_pretrained(str(scratch), safe_serialization=True)
        tokenizer.save_pretrained(str(scratch))
        del merged, model, whole
        found = agreement(
            reference, logits(AutoModelForCausalLM.from_pretrained(str(scratch), dtype=torch.float32), sequences)
        )
        found.refuse_beyond(tolerances[dtype], f"{out.name}: merging changed the model")
        checked = asdict(found) | {"allowed": asdict(tolerances[dtype])}
        return seal(scratch, {**facts, "dtype": dtype, "checked": checked})


def seal(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a folder that was made, with the hash of each of its files; gives the manifest."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    manifest = {**facts, "files": files}
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2, default=str))
    return manifest


def sealed(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder that was made whole and is as it was; None where there is no such folder.

    Raises:
        TrainingError: a file was changed, is missing or is too many.
    """
    if not folder.is_dir():
        return None
    try:
        manifest: dict[str, Any] = orjson.loads((folder / MANIFEST).read_bytes())
        there = {path.name: file_sha256(path) for path in folder.iterdir() if path.name != MANIFEST}
        wanted = dict(manifest["files"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{folder}: no folder that was made here ({error}); remove it or name another") from None
    if there != wanted:
        wrong = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
        raise TrainingError(f"{folder}: changed since it was made: {', '.join(wrong)}; remove it and make it again")
    return manifest


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes it at the end, so that ``out`` appears whole or not at all.

    Raises:
        TrainingError: it is there already, or cannot be written.
    """
    try:
        if out.exists():
            raise TrainingError(f"{out} is there already; name another folder or remove it")
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            yield scratch
            scratch.chmod(0o755)
            scratch.rename(out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise TrainingError(f"{error.filename or out}: {error.strerror or error}: it cannot be written") from error

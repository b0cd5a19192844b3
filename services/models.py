"""Whole models of adapters: merged, exported and quantized, each a folder with a manifest of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.infra import clock
from ratchet.schemas.errors import TrainingError
from ratchet.services import wiring
from ratchet.services.controller.seed import adapters
from ratchet.services.learning import bases, evaluation_files
from ratchet.trainers import dataset as datasets
from ratchet.trainers.adapters import exporting, merging, quantizing
from ratchet.trainers.evaluation.asking import with_system
from ratchet.trainers.evaluation.held_out import read_evaluation
from ratchet.trainers.registry import file_sha256

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.schemas.events import Adapter
    from ratchet.trainers.adapters.gguf_file import Quantization
    from ratchet.trainers.adapters.quantizing import Method

Manifest = dict[str, Any]


def merge(s: Settings, name: str, out: Path | None = None) -> tuple[Path, Manifest]:
    """Merge an adapter into its base model; a folder that was made before, of the same files, is taken as it is.

    Returns:
        ``(folder, manifest)``.

    Raises:
        TrainingError: no such adapter, no base model here, or the merged model answers otherwise.
        AdapterRefused: its files are not those that were registered.
    """
    adapter = _adapter(s, name)
    base = _base(s, adapter)
    folder = out or s.home / "merged" / name
    facts = _facts(adapter, base)
    made = merging.sealed(folder)
    if made is not None:
        if any(made.get(key) != facts[key] for key in ("adapter", "base_files")):
            raise TrainingError(f"{folder} is made of something else; remove it or name another folder")
        return folder, made
    files = wiring.shelf(s).folder(adapter)
    return folder, merging.merge(base, files, folder, conversations(s, adapter), facts | {"made_at": clock.now()})


def export(s: Settings, name: str, quantization: Quantization, out: Path | None = None) -> tuple[Path, Manifest]:
    """Write an adapter's whole model as GGUF with a Modelfile; raises as `merge`."""
    adapter = _adapter(s, name)
    model, made_of = _whole(s, adapter)
    policy = s.tasks.get(adapter.task)
    folder = out or s.home / "exports" / f"{name}-{quantization}"
    prompt = policy.system_prompt if policy else None
    facts = {"adapter": made_of, "made_at": clock.now()}
    return folder, exporting.export_gguf(model, folder, name, quantization, conversations(s, adapter), prompt, facts)


def quantize(
    s: Settings, name: str, method: Method, out: Path | None = None, python: str = sys.executable
) -> tuple[Path, Manifest]:
    """Quantize an adapter's whole model on this machine's GPU; raises as `merge`, and where there is none.

    Args:
        s: the settings.
        name: the adapter.
        method: AWQ or GPTQ.
        out: the folder to make.
        python: an interpreter with llm-compressor.
    """
    quantizing.refuse_without_gpu(method, python)
    adapter = _adapter(s, name)
    model, made_of = _whole(s, adapter)
    folder = out or s.home / "exports" / f"{name}-{method}"
    facts = {"adapter": made_of, "made_at": clock.now()}
    return folder, quantizing.quantize(model, folder, method, conversations(s, adapter, side="train"), facts, python)


def conversations(s: Settings, adapter: Adapter, side: str = "holdout") -> list[list[dict[str, Any]]]:
    """What a model of an adapter's task is asked: the frozen evaluation, and the held-out rows with their answers.

    Args:
        s: the settings.
        adapter: whose task and dataset.
        side: of the dataset; quantization is calibrated on what was trained on.

    Raises:
        TrainingError: there is neither here.
    """
    policy, files = s.tasks.get(adapter.task), evaluation_files(s, adapter.task) if side == "holdout" else []
    prompt = policy.system_prompt if policy else None
    found = [with_system(row["messages"], prompt) for file in files for row in read_evaluation(file)]
    known = [one for one in datasets.versions(s.home) if one.version == adapter.dataset and not one.erased]
    for row in known[0].rows(side) if known else ():
        answer = row.get("chosen") or row.get("completion") or []
        found.append([*with_system(row["prompt"], prompt), *answer])
    if not found:
        raise TrainingError(
            f"{adapter.name} cannot be checked: task {adapter.task!r} has no evaluation file, and dataset"
            f" {adapter.dataset} is not on this machine or has no {side} rows"
        )
    return found


def _adapter(s: Settings, name: str) -> Adapter:
    with wiring.store(s) as store:
        found = next((one for one in adapters(store) if one.name == name), None)
    if found is None:
        raise TrainingError(f"{name!r} is not in the registry; `ratchet adapters list` shows what is")
    if not found.answers:
        raise TrainingError(f"{name} is a reward model, which gives no answers: there is no whole model of it")
    if found.served_as:
        raise TrainingError(f"{name} is {found.served_as} at its provider: there are no weights here")
    return found


def _base(s: Settings, adapter: Adapter) -> Path:
    """The folder of an adapter's base model."""
    base = next((one for one in bases(s, serve=False).values() if one.model == adapter.base_model), None)
    if base is None or base.path is None:
        raise TrainingError(f"{adapter.name}: the settings name no folder of its base model {adapter.base_model!r}")
    return base.path()


def _whole(s: Settings, adapter: Adapter) -> tuple[Path, Manifest]:
    """The folder of the whole model, and what it is made of; of a model that was trained whole its own."""
    if adapter.params.get("adapter_type") == "full":
        return wiring.shelf(s).folder(adapter), _made_of(adapter)
    folder, manifest = merge(s, adapter.name)
    return folder, manifest["adapter"]


def _made_of(adapter: Adapter) -> Manifest:
    return {"name": adapter.name, "weights_sha256": adapter.weights_sha256, "dataset": adapter.dataset}


def _facts(adapter: Adapter, base: Path) -> Manifest:
    files = {path.name: file_sha256(path) for path in sorted(base.glob("*.safetensors"))}
    return {"adapter": _made_of(adapter), "base_model": adapter.base_model, "base_files": files}

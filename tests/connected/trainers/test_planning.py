"""What a run will take: the estimate beside what torch keeps, and the refusal of what cannot fit."""

import json
from pathlib import Path
from typing import Any

import pytest
from training_place import Place
from typer.testing import CliRunner

from ratchet.infra import clock
from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.services.cli.main import app
from ratchet.trainers.building import build
from ratchet.trainers.planning import _cgroup, memory_now, recorded_pace, shape_of
from ratchet.trainers.rules.footprint import kept_by_a_layer
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.model import adapter, load
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]


def kept(model: Any, sequences: int, length: int) -> int:
    """Bytes that one forward pass keeps for the way back, each storage once, weights not counted."""
    import torch

    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, tuple[int, Any]] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), storage)
        return tensor

    ids = torch.ones((sequences, length), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return sum(size for size, _ in found.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt", "full"])
def test_a_layer_keeps_what_is_counted(tmp_path: Path, kind: str, dtype: str) -> None:
    """A decoder with grouped keys: what one more layer keeps in a real forward pass is the rule's within a sixth."""
    import torch
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    recipe = Recipe.model_validate({"adapter_type": kind, "virtual_tokens": 1, "dtype": dtype})
    sizes = []
    for layers in (1, 3):
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        config.save_pretrained(tmp_path / str(layers))
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config).to(getattr(torch, dtype))
        added = adapter(recipe)
        model = model if added is None else get_peft_model(model, added)
        sizes.append(kept(model.train(), 8, 127))
    shape = shape_of(tmp_path / "3", recipe)
    counted = kept_by_a_layer(shape, recipe, 4 if dtype == "float32" else 2) * 8 * 127
    if kind == "dora":
        counted += shape.linear // shape.layers * 4
    assert (sizes[1] - sizes[0]) / 2 == pytest.approx(counted, rel=1 / 6)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prefix", "prompt", "full"])
def test_parameters_are_counted_without_loading_them(tiny_llama: Path, kind: str) -> None:
    """The counts from the configuration are those of the loaded model with its adapter."""
    from peft import get_peft_model

    recipe = Recipe.model_validate({"adapter_type": kind, "dtype": "float32"})
    shape = shape_of(tiny_llama, recipe)
    model, added = load(tiny_llama, recipe), adapter(recipe)
    model = model if added is None else get_peft_model(model, added)
    sizes = [(one.numel(), one.requires_grad) for one in model.parameters()]
    assert (shape.parameters, shape.trained) == (sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns))
    assert (shape.hidden, shape.query, shape.keys, shape.inner, shape.layers) == (64, 64, 64, 128, 2)


def test_a_run_that_cannot_fit_is_refused_before_it_loads_anything(tiny_llama: Path, tmp_path: Path) -> None:
    """The training process itself says what it would take and which setting would make it fit; no weights are there."""
    row = {
        "prompt": [{"role": "user", "content": "q" * 400}],
        "completion": [{"role": "assistant", "content": "a" * 60}],
    }
    (tmp_path / "rows.jsonl").write_text((json.dumps(row) + "\n") * 64)
    alone = memory_now(Recipe(), here=True).runtime / 2**30
    recipe = Recipe(method="sft", batch_size=64, memory_gib=alone + 1.0)
    job = TrainingJob(base_model=tiny_llama, dataset=tmp_path / "rows.jsonl", output=tmp_path, recipe=recipe)
    with pytest.raises(TrainingError, match=r"GiB are allowed by memory_gib; it fits with .*batch_size = \d+ and grad"):
        train(job)
    assert not (tmp_path / "adapter").exists()
    none = job.model_copy(update={"recipe": recipe.model_copy(update={"memory_gib": 0.01})})
    with pytest.raises(TrainingError, match="no setting makes it fit"):
        train(none)


def test_the_limit_of_the_control_group_counts(tmp_path: Path) -> None:
    """Of either version: the limit less what is in use, but for pages that are given back; no limit is none."""
    new = tmp_path / "v2"
    new.mkdir()
    for name, text in (("max", "1000\n"), ("current", "700\n"), ("stat", "anon 5\ninactive_file 200\n")):
        (new / f"memory.{name}").write_text(text)
    assert _cgroup(new) == 500
    (new / "memory.max").write_text("max\n")
    assert _cgroup(new) is None
    old = tmp_path / "v1" / "memory"
    old.mkdir(parents=True)
    for name, text in (("limit_in_bytes", "1000"), ("usage_in_bytes", "900"), ("stat", "total_inactive_file 50\n")):
        (old / f"memory.{name}").write_text(text)
    assert _cgroup(tmp_path / "v1") == 150
    assert _cgroup(tmp_path / "nothing") is None


def test_time_is_known_from_runs_alike_and_unknown_else(tiny_llama: Path, tmp_path: Path) -> None:
    """Recorded runs on the same base model with the same settings count, by their median; others do not."""
    recipe = Recipe(method="sft")
    for number, (seconds, kind) in enumerate([(10.0, "lora"), (20.0, "lora"), (60.0, "lora"), (9000.0, "full")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = recipe.model_copy(update={"adapter_type": kind})
        job = TrainingJob(base_model=tiny_llama, dataset=tmp_path, output=folder, recipe=run)
        (folder / "job.json").write_text(job.model_dump_json())
        (folder / "result.json").write_text(json.dumps({"training_seconds": seconds, "tokens": 100}))
    assert recorded_pace(tmp_path, tiny_llama, recipe) == (0.2, 3)
    assert recorded_pace(tmp_path, tiny_llama, recipe.model_copy(update={"adapter_type": "ia3"})) == (None, 0)


def test_the_command_says_what_a_training_would_take(place: Place, tiny_llama: Path, monkeypatch: Any) -> None:
    """Lengths, steps and memory of a dataset that is there; what does not fit ends with the setting to change."""
    place.pairs(40)
    made = build(place.store, place.home, place.task, clock.now(), kind="preference")
    config = place.home / "ratchet.toml"
    config.write_text(f'home = "{place.home}"\nbase_model_path = "{tiny_llama}"\n[tasks.{place.task}]\n')
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    run = CliRunner()
    done = run.invoke(app, ["train", place.task, "--plan", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert (told["dataset"], told["rows"], told["steps"], told["seconds"]) == (made.version, 30, 8, None)
    assert told["fits"] is True
    assert told["memory"]["total"] < told["available"]
    assert told["length_median"] <= told["length_longest"] < 100

    text = run.invoke(app, ["train", place.task, "--plan"]).output
    assert "8 steps" in text
    assert "time unknown" in text
    assert "it fits" in text

    config.write_text(config.read_text() + "training = { memory_gib = 0.9, batch_size = 16 }\n")
    short = run.invoke(app, ["train", place.task, "--plan"])
    assert short.exit_code == 1
    assert "allowed by memory_gib; it fits with" in short.output
    served = run.invoke(app, ["train", place.task, "--plan", "--adapter-type", "ia3"]).exception
    assert "adapter_type 'ia3' is not loaded by vLLM" in str(served)
    assert not (place.home / "jobs").exists()

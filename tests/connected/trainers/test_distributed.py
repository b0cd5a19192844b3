"""A run on two processes of this machine, without a GPU: started as on several GPUs, and the same as one process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Distributed, Recipe
from ratchet.trainers import process
from ratchet.trainers.rules.launching import accelerate_config
from ratchet.trainers.training import telling
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.model import load
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]


async def test_two_processes_do_what_one_does_with_twice_the_batch(tiny_llama: Path, tmp_path: Path) -> None:
    """By data parallelism over gloo: the losses and the weights are those of one process within rounding.

    The first process alone tells progress and leaves the result; the hash is that of the file that it wrote.
    """
    from safetensors.torch import load_file

    from ratchet.trainers.registry import file_sha256

    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {number:02}"}],
            "completion": [{"role": "assistant", "content": "yes" if number % 2 else "no!"}],
        }
        for number in range(16)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    async def run(name: str, **settings: Any) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
        common = {"method": "sft", "dtype": "float32", "threads": 1, "max_length": 64, "checkpoint_s": 0, "epochs": 2}
        recipe = Recipe.model_validate(common | settings)
        output = tmp_path / name
        output.mkdir()
        job = TrainingJob(base_model=tiny_llama, dataset=tmp_path / "rows.jsonl", output=output, recipe=recipe)
        (output / "job.json").write_text(job.model_dump_json())
        if recipe.distributed is None:
            result = await asyncio.to_thread(train, job)
        else:
            result = await process.run(output / "job.json", output, lambda line: None)
        return result, list(telling.lines(output / "progress.jsonl")), output / "adapter" / "adapter_model.safetensors"

    one, steps, weights = await run("one", batch_size=8)
    two, same, shared = await run("two", batch_size=4, distributed={"processes": 2})
    assert (tmp_path / "two" / "accelerate.json").is_file()
    assert one["steps"] == two["steps"] == 4
    assert [line["step"] for line in same] == [1, 2, 3, 4]
    assert [line["loss"] for line in same] == pytest.approx([line["loss"] for line in steps], rel=1e-4)
    assert two["weights_sha256"] == file_sha256(shared)
    ours, theirs = load_file(weights), load_file(shared)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4

    with pytest.raises(TrainingError, match="no row fits into max_length=16"):
        await run("short", batch_size=4, max_length=16, distributed={"processes": 2})


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed_zero2"])
def test_accelerate_reads_what_it_is_told(tmp_path: Path, strategy: Any) -> None:
    """Its own parser takes each configuration, and knows each of its keys."""
    from accelerate.commands.config.config_args import load_config_from_file

    told = accelerate_config(Distributed(processes=4, strategy=strategy), gradient_accumulation=2)
    file = tmp_path / "accelerate.json"
    file.write_text(json.dumps(told))
    read = load_config_from_file(str(file))
    assert (read.num_processes, read.num_machines) == (4, 1)
    assert read.distributed_type.value == {"ddp": "MULTI_GPU", "fsdp": "FSDP", "deepspeed_zero2": "DEEPSPEED"}[strategy]


def test_an_accelerator_that_cannot_be_is_refused(tiny_llama: Path) -> None:
    """Without a GPU Unsloth is refused before anything is loaded; nothing else is taken silently instead."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match="accelerator 'unsloth': this machine has no GPU"):
        load(tiny_llama, Recipe(accelerator="unsloth"))

"""Several rows in one sequence: the same losses as one by one, and no row sees its neighbour."""

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.model import load, refuse_leaks
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]


def test_packed_rows_learn_as_rows_one_by_one(tiny_llama: Path, tmp_path: Path) -> None:
    """Twelve rows of unlike lengths in a step, alone and packed: loss and gradient norm agree, in fewer sequences."""
    rows = [
        {
            "prompt": [{"role": "user", "content": "q" * (5 * number % 17)}],
            "completion": [{"role": "assistant", "content": "ab" * (1 + number % 5)}],
        }
        for number in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def first_step(name: str, **settings: Any) -> dict[str, Any]:
        output = tmp_path / name
        output.mkdir()
        recipe = Recipe.model_validate(
            {"method": "sft", "dtype": "float32", "threads": 1, "max_length": 128, **settings}
        )
        job = TrainingJob(base_model=tiny_llama, dataset=tmp_path / "rows.jsonl", output=output, recipe=recipe)
        result = train(job)
        assert (result["n"], result["steps"]) == (12, 1)
        line: dict[str, Any] = json.loads((output / "progress.jsonl").read_text().splitlines()[0])
        return line

    alone = first_step("alone", batch_size=12)
    packed = first_step("packed", batch_size=6, packing=True)
    assert packed["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert packed["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)


def test_a_model_whose_rows_would_see_each_other_is_refused(tiny_llama: Path) -> None:
    """A state that is carried from row to row is found by a look at it; attention by positions passes the same look."""
    from transformers import MambaConfig, MambaForCausalLM

    refuse_leaks(load(tiny_llama, Recipe(dtype="float32")))
    refuse_leaks(load(tiny_llama, Recipe(dtype="bfloat16")))
    carried = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(TrainingError, match=r"packing: in a MambaForCausalLM .* allowed: packing = false"):
        refuse_leaks(carried)

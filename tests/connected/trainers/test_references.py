"""Training's figures are those on record: loss and gradient norm of every step of SFT, DPO and KTO on a tiny model.

A change of them is a change of what training does: of the rows' token ids, their order, a loss, the optimizer, the
schedule, or a library. Where it is meant, ``make training-references`` writes them again.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_llama

from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]

FILE = Path(__file__).with_name("references.json")
METHODS = ("sft", "dpo", "kto")
TOLERANCE = 2e-5
"""Relative. Other kernels (plain or AVX2 for AVX-512, two threads for one) move these figures by 2e-7 at most; beta or
the learning rate changed by 1% moves the gradient norm of some step by more than 3e-3."""
RECIPE = {"dtype": "float32", "threads": 1, "learning_rate": 0.003, "max_length": 64, "seed": 11}


def rows(method: str) -> list[dict[str, Any]]:
    """Seeded questions and answers of several lengths, of the kind that a method learns from."""
    drawn, found = random.Random(7), []
    for number in range(32):
        question, better, worse = ("".join(drawn.choices("abcdefgh", k=drawn.randint(1, 8))) for _ in range(3))
        prompt = [{"role": "system", "content": "Say yes."}, {"role": "user", "content": question}]
        chosen = [{"role": "assistant", "content": f"yes {better}"}]
        rejected = [{"role": "assistant", "content": f"no {worse}"}]
        match method:
            case "dpo":
                found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
            case "kto":
                wanted = number % 3 > 0
                found.append({"prompt": prompt, "completion": chosen if wanted else rejected, "label": wanted})
            case _:
                found.append({"prompt": prompt, "completion": chosen})
    return found


def figures(method: str, model: Path, folder: Path) -> list[dict[str, float]]:
    """Train; gives loss and gradient norm of each step."""
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(method)))
    recipe = Recipe.model_validate(RECIPE | {"method": method})
    train(TrainingJob(base_model=model, dataset=folder / "train.jsonl", output=folder, recipe=recipe))
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("step", "loss", "grad_norm")} for line in lines]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_gives_the_figures_on_record(method: str, tiny_llama: Path, tmp_path: Path) -> None:
    """Every step's loss and gradient norm; where they differ, the steps are shown beside what was expected."""
    expected = json.loads(FILE.read_text())[method]
    found = figures(method, tiny_llama, tmp_path / method)
    assert len(found) == len(expected) == 8
    off = [
        f"step {is_['step']} {name}: {is_[name]:.6g}, on record {was[name]:.6g} ({is_[name] / was[name] - 1:+.2%})"
        for was, is_ in zip(expected, found, strict=True)
        for name in ("loss", "grad_norm")
        if is_[name] != pytest.approx(was[name], rel=TOLERANCE)
    ]
    assert not off, "\n".join(off)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        model = write_tiny_llama(Path(scratch) / "tiny-llama")
        found = {method: figures(method, model, Path(scratch) / method) for method in METHODS}
    FILE.write_text(json.dumps(found, indent=1) + "\n")

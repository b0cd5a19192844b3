"""Runs killed in the middle: what goes on from a checkpoint ends where an unbroken run ends."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parts import wait_for

from ratchet.schemas.training_policy import Recipe
from ratchet.trainers import process
from ratchet.trainers.training import launching, telling
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]

STEPS = 24
TOLERANCE = 1e-6
"""Of each weight, absolute; none differed by a bit when this was written (docs/experiments.md)."""


def job(folder: Path, model: Path, method: str, **recipe: Any) -> TrainingJob:
    """A run of 24 steps, with dropout, over rows that are shuffled anew each of its two epochs."""
    folder.mkdir()
    letters, rows = random.Random(7), []
    for _ in range(56):
        prompt = [{"role": "user", "content": "".join(letters.choices("abcdefgh", k=6))}]
        answers = {"chosen": "yes", "rejected": "no"} if method == "dpo" else {"completion": "yes"}
        said = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
        rows.append({"prompt": prompt, **said})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:48]))
    (folder / "holdout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[48:]))
    settings = {"method": method, "dtype": "float32", "threads": 1, "max_length": 64, "epochs": 2.0}
    settings |= {"lora_dropout": 0.1, "learning_rate": 0.01, "checkpoint_s": 1e-6, **recipe}
    made = TrainingJob(
        base_model=model,
        dataset=folder / "train.jsonl",
        holdout=folder / "holdout.jsonl",
        output=folder / "out",
        recipe=Recipe.model_validate(settings),
    )
    made.output.mkdir()
    (folder / "job.json").write_text(made.model_dump_json())
    return made


def killed(folder: Path, made: TrainingJob, after: int) -> list[int]:
    """Start the run as the worker does, kill it with -9 after so many steps; gives the steps it told of."""
    command = [sys.executable, "-m", launching.TRAINER, "--job", str(folder / "job.json")]
    with (folder / "killed.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: child.poll() is not None or len(told(made.output)) >= after, patience_s=120)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
    assert code == -signal.SIGKILL, (folder / "killed.log").read_text()
    assert not (made.output / "result.json").exists()
    return told(made.output)


def without_more(folder: Path, made: TrainingJob) -> TrainingJob:
    """The same job, which makes no more checkpoints by the clock: that changes nothing of what comes out of it."""
    again = made.model_copy(update={"recipe": made.recipe.model_copy(update={"checkpoint_s": 0.0})})
    (folder / "job.json").write_text(again.model_dump_json())
    return again


def told(output: Path) -> list[int]:
    """The steps of the progress file."""
    return [int(line["step"]) for line in telling.lines(output / "progress.jsonl")]


def furthest(one: Path, other: Path) -> float:
    """The largest difference of a weight between two adapters."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


async def test_a_killed_run_ends_where_an_unbroken_one_ends(tiny_llama: Path, tmp_path: Path) -> None:
    """DPO killed with -9: the next attempt has the same weights and lines, tells each step once, and tidies up."""
    whole = train(job(tmp_path / "whole", tiny_llama, "dpo", checkpoint_s=0))
    broken = job(tmp_path / "broken", tiny_llama, "dpo")
    before = killed(tmp_path / "broken", broken, 9)

    without_more(tmp_path / "broken", broken)
    lines: list[dict[str, Any]] = []
    result = await process.run(tmp_path / "broken" / "job.json", broken.output, lines.append)
    assert [line["step"] for line in lines] == list(range(before[-1] + 1, STEPS + 1))
    assert told(broken.output) == list(range(1, STEPS + 1))
    assert 0 < result["resumed_after"] <= before[-1]
    assert result["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    assert furthest(broken.output, tmp_path / "whole" / "out") <= TOLERANCE
    assert not list(broken.output.glob("checkpoint-*"))


def test_a_spoilt_checkpoint_is_passed_over(
    tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SFT killed with -9, then a bit of the newest checkpoint's weights turned: the one before it is gone on from.

    With early stopping, so both runs find the same best step among those before and after the kill.
    """
    watching = {"early_stopping": "loss", "patience": 24, "evaluations": 12}
    whole = train(job(tmp_path / "whole", tiny_llama, "sft", checkpoint_s=0, **watching))
    broken = job(tmp_path / "broken", tiny_llama, "sft", **watching)
    killed(tmp_path / "broken", broken, 9)
    good = sorted(
        (folder for folder in broken.output.glob("checkpoint-*") if (folder / "seal.json").is_file()),
        key=lambda folder: int(folder.name.removeprefix("checkpoint-")),
    )
    weights = good[-1] / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)

    result = train(without_more(tmp_path / "broken", broken))
    assert (
        f"{good[-1].name.replace('-', ' of step ')} passed over: adapter_model.safetensors" in capsys.readouterr().err
    )
    assert 0 < result["resumed_after"] < int(good[-1].name.removeprefix("checkpoint-"))
    assert result["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    assert result["metrics"]["best_step"] > 0
    assert furthest(broken.output, tmp_path / "whole" / "out") <= TOLERANCE

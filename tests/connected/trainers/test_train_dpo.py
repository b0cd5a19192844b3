"""DPO for real, on a model small enough to train in seconds: torch, transformers, TRL and PEFT."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratchet.trainers.dpo_job import PreferenceRow
from ratchet.trainers.encoding import encode_pair, encode_pairs
from ratchet.trainers.preference_accuracy import preference_accuracy

pytestmark = [pytest.mark.connected, pytest.mark.slow]


def row(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    """One line of a preference dataset."""
    return {
        "prompt": [{"role": "system", "content": "Say yes."}, {"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def write_rows(path: Path, n: int, seed: int) -> Path:
    """Questions of random letters; yes is better than no."""
    letters = random.Random(seed)
    questions = ["".join(letters.choices("abcdefgh", k=6)) for _ in range(n)]
    path.write_text("".join(json.dumps(row(question, "yes", "no")) + "\n" for question in questions))
    return path


def run(folder: Path, tiny_llama: Path, **params: Any) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run the trainer in a process of its own, as the worker does."""
    job = {
        "base_model": str(tiny_llama),
        "dataset": str(write_rows(folder / "train.jsonl", 48, seed=1)),
        "holdout": str(write_rows(folder / "holdout.jsonl", 16, seed=2)),
        "output": str(folder / "out"),
        "params": {"dtype": "float32", "threads": 1, "learning_rate": 0.01, "max_length": 64, **params},
    }
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "ratchet.trainers.train_dpo", "--job", str(folder / "job.json")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False), folder / "out"


def test_training_lowers_the_loss_and_leaves_an_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    """The loss falls, held-out pairs come into the right order, and every artifact is there and agrees."""
    done, out = run(tmp_path, tiny_llama)
    assert done.returncode == 0, done.stderr

    result = json.loads((out / "result.json").read_text())
    weights = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    assert result["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (result["n"], result["steps"], result["too_long"]) == (48, 12, 0)
    assert result["metrics"]["loss_last"] < 0.8 * result["metrics"]["loss_first"]
    assert result["metrics"]["reward_accuracy"] == 1.0
    assert result["holdout_after"]["rate"] == 1.0
    assert result["holdout_after"]["n"] == 16

    config = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 8
    assert config["peft_type"] == "LORA"

    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert set(lines[0]) == {
        "step", "steps", "loss", "reward_accuracy", "reward_margin", "grad_norm", "lr", "eta_s",
    }  # fmt: skip
    assert lines[-1]["eta_s"] == 0

    rows = [PreferenceRow.model_validate_json(line) for line in (tmp_path / "holdout.jsonl").read_text().splitlines()]
    loaded = preference_accuracy(tiny_llama, out / "adapter", rows, dtype="float32")
    assert loaded == result["holdout_after"]
    assert preference_accuracy(tiny_llama, None, rows, dtype="float32") == result["holdout_before"]
    normalised = preference_accuracy(tiny_llama, None, rows, dtype="float32", length_normalised=True)
    assert normalised == result["holdout_before_per_token"]


def test_a_loss_that_is_no_number_stops_the_run_with_a_reason(tiny_llama: Path, tmp_path: Path) -> None:
    """A learning rate that blows the weights up ends with status 3 and a sentence, and without an adapter."""
    done, out = run(tmp_path, tiny_llama, learning_rate=1e30, warmup_share=0.0)
    assert done.returncode == 3, done.stderr
    assert "the run stopped" in json.loads((out / "result.json").read_text())["error"]
    assert not (out / "adapter").exists()


def test_prompts_are_encoded_as_serving_renders_them(tiny_llama: Path) -> None:
    """The prompt's ids are the chat template's with the generation prompt; the answer ends the turn."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    one = PreferenceRow.model_validate(row("Good?", "yes", "no"))
    pair = encode_pair(tokenizer, one)
    rendered = "<|im_start|>system\nSay yes.<|im_end|>\n<|im_start|>user\nGood?<|im_end|>\n<|im_start|>assistant\n"
    messages = [message.model_dump() for message in one.prompt]
    assert tokenizer.decode(pair.prompt_ids) == rendered
    assert pair.prompt_ids == tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(pair.chosen_ids) == "yes<|im_end|>"
    assert pair.rejected_ids[-1] == tokenizer.eos_token_id


def test_a_better_answer_that_does_not_fit_drops_its_pair(tiny_llama: Path) -> None:
    """A worse answer may lose its end, a better one may not."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    rows = [PreferenceRow.model_validate(row("q", *pair)) for pair in [("y" * 50, "n"), ("y", "n" * 50)]]
    room = len(encode_pair(tokenizer, rows[0]).prompt_ids) + 10
    encoded, kept = encode_pairs(tokenizer, rows, room)
    assert kept == rows[1:]
    assert len(encoded[0].rejected_ids) == 10

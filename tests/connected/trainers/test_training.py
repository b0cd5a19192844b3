"""Training for real, on a model small enough to train in seconds: torch, transformers, TRL and PEFT."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import plain_dpo
import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.preference_accuracy import preference_accuracy
from ratchet.trainers.training.encoding import encode_pair, encode_pairs
from ratchet.trainers.training.job import PreferenceRow, TrainingJob
from ratchet.trainers.training.run import train

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
        "recipe": {"dtype": "float32", "threads": 1, "learning_rate": 0.01, "max_length": 64, **params},
    }
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "ratchet.trainers.training.run", "--job", str(folder / "job.json")]
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
        "step", "steps", "loss", "reward_accuracy", "reward_margin", "chosen_reward", "rejected_reward", "grad_norm",
        "lr", "tokens_s", "peak_mb", "eta_s",
    }  # fmt: skip
    assert min(line[name] for line in lines for name in ("tokens_s", "peak_mb")) > 0
    assert lines[-1]["eta_s"] == 0

    rows: list[PreferenceRow] = [
        PreferenceRow.model_validate_json(line) for line in (tmp_path / "holdout.jsonl").read_text().splitlines()
    ]
    loaded = preference_accuracy(tiny_llama, out / "adapter", rows, dtype="float32")
    assert loaded == result["holdout_after"]
    assert preference_accuracy(tiny_llama, None, rows, dtype="float32") == result["holdout_before"]
    normalised = preference_accuracy(tiny_llama, None, rows, dtype="float32", length_normalised=True)
    assert normalised == result["holdout_before_per_token"]


def test_a_loss_that_is_no_number_stops_the_run_with_a_reason(tiny_llama: Path, tmp_path: Path) -> None:
    """A learning rate that blows the weights up ends with a sentence, and without an adapter."""
    pairs = [json.loads(line) for line in write_rows(tmp_path / "pairs.jsonl", 32, seed=1).read_text().splitlines()]
    with pytest.raises(TrainingError, match="the run stopped"):
        train(job(tmp_path / "out", tiny_llama, pairs, learning_rate=1e30, warmup_share=0.0))
    assert not (tmp_path / "out" / "adapter").exists()


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


def job(folder: Path, tiny_llama: Path, rows: list[dict[str, Any]], **recipe: Any) -> TrainingJob:
    """A job on these rows, the last quarter of them held out."""
    folder.mkdir()
    cut = 3 * len(rows) // 4
    for name, part in (("train", rows[:cut]), ("holdout", rows[cut:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    settings = {"dtype": "float32", "threads": 1, "learning_rate": 0.01, "max_length": 64, **recipe}
    return TrainingJob(
        base_model=tiny_llama,
        dataset=folder / "train.jsonl",
        holdout=folder / "holdout.jsonl",
        output=folder,
        recipe=Recipe.model_validate(settings),
    )


def examples(n: int, *, labelled: bool) -> list[dict[str, Any]]:
    """Questions with a wanted answer and, where they are labelled, every third with an unwanted one."""
    letters, found = random.Random(3), []
    for number in range(n):
        wanted = not labelled or number % 3 > 0
        pair = row("".join(letters.choices("abcdefgh", k=6)), "yes", "no")
        one = {"prompt": pair["prompt"], "completion": pair["chosen" if wanted else "rejected"]}
        found.append(one | ({"label": wanted} if labelled else {}))
    return found


def test_supervised_training_makes_the_answers_likelier(tiny_llama: Path, tmp_path: Path) -> None:
    """SFT on the answers alone: the loss falls, and so does the held-out perplexity."""
    result = train(job(tmp_path / "sft", tiny_llama, examples(48, labelled=False), method="sft"))
    metrics = result["metrics"]
    assert (result["n"], result["steps"]) == (36, 9)
    assert metrics["loss_last"] < 0.8 * metrics["loss_first"]
    assert metrics["perplexity_after"] < 0.8 * metrics["perplexity_before"]
    assert (tmp_path / "sft" / "adapter" / "adapter_model.safetensors").is_file()


def test_kto_learns_from_thumbs_without_an_opposite(tiny_llama: Path, tmp_path: Path) -> None:
    """What was wanted becomes likelier than before, measured on held-out questions."""
    result = train(job(tmp_path / "kto", tiny_llama, examples(60, labelled=True), method="kto", epochs=2.0))
    assert result["metrics"]["perplexity_after"] < result["metrics"]["perplexity_before"]
    assert result["metrics"]["reward_margin"] > 0


def test_memory_is_saved_without_another_result(tiny_llama: Path, tmp_path: Path) -> None:
    """Checkpointing, accumulation and reference log-probabilities ahead of time give the losses of the plain run."""
    pairs = [json.loads(line) for line in write_rows(tmp_path / "pairs.jsonl", 32, seed=4).read_text().splitlines()]

    def losses(name: str, **recipe: Any) -> list[float]:
        train(job(tmp_path / name, tiny_llama, pairs, **recipe))
        lines = (tmp_path / name / "progress.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    plain = losses("plain")
    assert losses("checkpointing", gradient_checkpointing=True) == pytest.approx(plain, rel=1e-4)
    assert losses("reference", precompute_reference=True) == pytest.approx(plain, rel=1e-4)
    # the supervised term is a mean over a step's tokens, of which pairs have unlike many: the sigmoid alone
    alone: dict[str, Any] = {"loss_type": ["sigmoid"], "loss_weights": [1.0]}
    whole = losses("whole", **alone)
    assert losses("parts", batch_size=2, gradient_accumulation=2, **alone) == pytest.approx(whole, rel=1e-3)


def test_a_run_is_the_plain_script_s(tiny_llama: Path, tmp_path: Path) -> None:
    """Loss and gradient norm, step by step, are those of a plain TRL script on the same rows with the same seed."""
    pairs = [json.loads(line) for line in write_rows(tmp_path / "pairs.jsonl", 32, seed=5).read_text().splitlines()]
    one = job(tmp_path / "ours", tiny_llama, pairs)
    train(one)
    ours = [json.loads(line) for line in (tmp_path / "ours" / "progress.jsonl").read_text().splitlines()]
    theirs = plain_dpo.run(one.model_copy(update={"output": tmp_path / "plain"}).model_dump(mode="json"))
    assert len(ours) == len(theirs) == 6
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-6)

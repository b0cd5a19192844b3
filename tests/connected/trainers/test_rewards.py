"""Reward models and learning from rewards, for real, on a model small enough to train in seconds."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from training_place import Place

from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.checks import RegexCheck
from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training.job import RewardSource, TrainingJob
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]

CAPITALS = RegexCheck(name="capitals", kind="regex", pattern="[A-M]")
"""Random bytes have one of these letters now and then; the likeliest ones of the tiny model have none."""
NAME = "t@v1-1a2b3c4d"


def pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    """One line of a preference dataset."""
    found: dict[str, Any] = {"prompt": [{"role": "user", "content": question}]}
    return found | {
        side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))
    }


def pairs(n: int, seed: int) -> list[dict[str, Any]]:
    """Answers of random letters; the better one is polite, wherever it says so."""
    letters = random.Random(seed)

    def some() -> str:
        return "".join(letters.choices("abcdefgh", k=5))

    return [pair(some(), f"{some()} please {some()}", f"{some()} gimme {some()}") for _ in range(n)]


def job(
    folder: Path, model: Path, rows: list[dict[str, Any]], reward: RewardSource | None, **recipe: Any
) -> TrainingJob:
    """A job on these rows, the last quarter of them held out."""
    folder.mkdir()
    cut = 3 * len(rows) // 4
    for name, part in (("train", rows[:cut]), ("holdout", rows[cut:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    settings = {"dtype": "float32", "threads": 1, "max_length": 96, "max_completion_length": 8, **recipe}
    return TrainingJob(
        base_model=model,
        dataset=folder / "train.jsonl",
        holdout=folder / "holdout.jsonl",
        output=folder,
        recipe=Recipe.model_validate(settings),
        reward=reward,
    )


@pytest.fixture(scope="module")
def reward_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A trained reward model's adapter, and the run's result."""
    folder = tmp_path_factory.mktemp("reward") / "run"
    fields = {"method": "reward", "batch_size": 12, "epochs": 3.0, "learning_rate": 0.01}
    result = train(job(folder, tiny_llama, pairs(80, seed=1), None, **fields))
    return folder / "adapter", result


def test_a_reward_model_tells_the_better_answer(reward_model: tuple[Path, dict[str, Any]]) -> None:
    """On pairs that it has not seen it is right more often than chance, with 95% confidence; its head is saved too."""
    from safetensors import safe_open

    adapter, result = reward_model
    assert result["holdout_after"]["n"] == 20
    assert result["holdout_after"]["low"] > 0.5
    assert result["metrics"]["reward_accuracy"] > 0.9
    with safe_open(adapter / "adapter_model.safetensors", "pt") as weights:
        assert any("score" in name for name in weights.keys())  # noqa: SIM118 - safetensors has no iterator


def sharp(**more: Any) -> dict[str, Any]:
    """A recipe by which a random model, whose logits differ little, learns in a dozen steps."""
    return {
        "batch_size": 32,
        "epochs": 2.0,
        "learning_rate": 0.01,
        "beta": 0.001,
        "temperature": 0.1,
        "max_completion_length": 4,
    } | more


def asked(n: int) -> list[dict[str, Any]]:
    """Rows of which only the prompts count."""
    return [pair(f"ask {number}", "x", "y") for number in range(n)]


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_check_s_score_is_learned(method: str, tiny_llama: Path, tmp_path: Path) -> None:
    """With a check as the reward, more held-out answers pass it after training than before, beyond both intervals."""
    source = RewardSource(task="t", check=CAPITALS)
    result = train(
        job(tmp_path / method, tiny_llama, asked(64), source, **sharp(method=method, reward_check="capitals"))
    )
    before, after = (result[f"rewards_{when}"]["capitals"] for when in ("before", "after"))
    assert before["n"] == after["n"] == 16
    assert after["low"] > before["high"]
    lines = [json.loads(line) for line in (tmp_path / method / "progress.jsonl").read_text().splitlines()]
    assert len(lines) == result["steps"] == 12
    assert {"reward", "reward_sd", "reward_same", "kl", "answer_tokens", "answers_cut"} <= lines[0].keys()
    assert lines[-1]["reward"] > 2 * lines[0]["reward"]
    assert (tmp_path / method / "adapter" / "adapter_model.safetensors").is_file()


def test_a_reward_model_s_score_is_learned(
    reward_model: tuple[Path, dict[str, Any]], tiny_llama: Path, tmp_path: Path
) -> None:
    """Held-out answers get a higher reward after training than before, by more than four standard errors."""
    adapter, _ = reward_model
    source = RewardSource(task="t", adapter=adapter)
    result = train(job(tmp_path / "run", tiny_llama, asked(64), source, **sharp(method="grpo", reward_adapter=NAME)))
    before, after = (result[f"rewards_{when}"]["adapter"] for when in ("before", "after"))
    assert before["n"] == after["n"] == 16
    assert after["mean"] - before["mean"] > 4 * (before["standard_error"] + after["standard_error"])
    assert result["metrics"]["reward"] == pytest.approx(after["mean"], abs=1.0)


def test_rewards_that_never_differ_stop_the_run(tiny_llama: Path, tmp_path: Path) -> None:
    """A check that no answer passes teaches nothing: the run ends with a sentence, and without an adapter."""
    never = RegexCheck(name="never", kind="regex", pattern="zzzzzzzz")
    fields = sharp(method="grpo", reward_check="never", epochs=0.5)
    with pytest.raises(TrainingError, match=r"in none of \d+ steps .* different rewards \(always 0.0\)"):
        train(job(tmp_path / "run", tiny_llama, asked(32), RewardSource(task="t", check=never), **fields))
    assert not (tmp_path / "run" / "adapter").exists()


async def test_a_reward_model_is_registered_and_rewards_the_next_job(
    store: Store, tiny_llama: Path, tmp_path: Path
) -> None:
    """It is neither loaded nor asked; a job that names it is trained by it, evaluated and loaded as any other."""
    place = Place(store, tmp_path, tiny_llama)
    place.pairs(64)
    first = await place.worker(floor=0.2).run(
        place.request(epochs=3.0, learning_rate=0.01).model_copy(update={"method": "reward"})
    )
    made = first.adapter
    assert made is not None, first.training.reason
    assert (made.method, made.status, made.answers) == ("reward", "registered", False)
    assert made.evaluation["reward_accuracy"]["n"] == 16
    assert place.replicas.loaded == {}
    fields = sharp(reward_adapter=made.name, reward_check="polite", epochs=1.0)
    second = await place.worker().run(place.request(**fields).model_copy(update={"method": "rloo"}))
    trained = second.adapter
    assert trained is not None, second.training.reason
    assert (trained.method, trained.params["reward_adapter"], trained.dataset) == ("rloo", made.name, made.dataset)
    assert list(place.replicas.loaded) == [trained.name]
    assert trained.evaluation["completion"]["n"] == 10
    assert trained.evaluation["rewards"]["after"].keys() == {made.name, "polite"}
    assert {"reward", "kl"} <= second.training.metrics.keys()


@pytest.mark.parametrize("method", ["grpo", "reward"])
def test_a_run_that_is_gone_on_with_ends_with_the_same_weights(method: str, tiny_llama: Path, tmp_path: Path) -> None:
    """Answers that are drawn, and a head that begins at random, are the same after a checkpoint as without it."""
    fields: dict[str, Any] = {"method": "reward"}
    if method == "grpo":
        fields = sharp(method="grpo", reward_check="capitals", epochs=0.5)
    rows, source = (asked(64), RewardSource(task="t", check=CAPITALS)) if method == "grpo" else (pairs(24, 3), None)
    one = job(tmp_path / method, tiny_llama, rows, source, checkpoint_s=0.001, **fields)
    whole = train(one)
    last = max(one.output.glob("checkpoint-*"), key=lambda folder: int(folder.name.partition("-")[2]))
    shutil.rmtree(last)  # as if the run had been killed while it wrote that
    again = train(one)
    assert 0 < again["resumed_after"] < whole["steps"] - 1
    assert again["weights_sha256"] == whole["weights_sha256"]

"""Runs that end before their last step: what is held out gets no better, or the rewards collapse."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training import telling
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]


def said(text: str) -> list[dict[str, str]]:
    """One answer."""
    return [{"role": "assistant", "content": text}]


def job(folder: Path, model: Path, train_rows: list[Any], holdout: list[Any], **recipe: Any) -> TrainingJob:
    """A job on these answers (dpo: better and worse), each to a question of its own."""
    folder.mkdir()
    for name, answers in (("train", train_rows), ("holdout", holdout)):
        rows = []
        for number, answer in enumerate(answers):
            prompt = [{"role": "user", "content": f"{name} {number}"}]
            one = {"completion": said(answer)} if isinstance(answer, str) else None
            rows.append({"prompt": prompt, **(one or {"chosen": said(answer[0]), "rejected": said(answer[1])})})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"dtype": "float32", "threads": 1, "max_length": 64, "learning_rate": 0.01, "checkpoint_s": 0, **recipe}
    return TrainingJob(
        base_model=model,
        dataset=folder / "train.jsonl",
        holdout=folder / "holdout.jsonl",
        output=folder,
        recipe=Recipe.model_validate(settings),
    )


def test_supervised_training_ends_where_held_out_answers_get_no_likelier(tiny_llama: Path, tmp_path: Path) -> None:
    """Trained on one answer and held to another, it ends early with the weights of its best step, and says so."""
    made = job(
        tmp_path / "sft", tiny_llama, ["yes"] * 48, ["no"] * 8, method="sft", epochs=4.0, early_stopping="loss",
        patience=2, evaluations=12,
    )  # fmt: skip
    result = train(made)
    lines = list(telling.lines(tmp_path / "sft" / "progress.jsonl"))
    measured = {int(line["step"]): line for line in lines if "eval_loss" in line}
    best = min(measured, key=lambda step: measured[step]["eval_loss"])
    metrics = result["metrics"]
    assert (metrics["stopped_early"], metrics["best_step"]) == (1.0, best)
    assert best < result["steps"] == max(measured) < 48
    assert len([step for step in measured if step > best]) == 2
    # what is left is that step's adapter, by the same measure
    assert metrics["perplexity_after"] == pytest.approx(measured[best]["perplexity"], rel=1e-6)
    assert metrics["perplexity_after"] < measured[result["steps"]]["perplexity"]


def test_preference_training_ends_where_held_out_pairs_are_in_order(tiny_llama: Path, tmp_path: Path) -> None:
    """Once every held-out pair is in the right order it cannot get better; held-out rewards are told beside it."""
    made = job(
        tmp_path / "dpo", tiny_llama, [("yes", "nay")] * 48, [("yes", "nay")] * 8, epochs=3.0,
        early_stopping="preference_accuracy", patience=3, evaluations=18,
    )  # fmt: skip
    result = train(made)
    lines = list(telling.lines(tmp_path / "dpo" / "progress.jsonl"))
    measured = [line for line in lines if "eval_loss" in line]
    assert {"eval_reward_accuracy", "eval_reward_margin", "eval_preference_accuracy"} <= measured[0].keys()
    best = next(line["step"] for line in measured if line["eval_preference_accuracy"] == 1.0)
    assert (result["metrics"]["best_step"], result["metrics"]["stopped_early"]) == (best, 1.0)
    assert result["holdout_after"]["rate"] == 1.0
    assert not list((tmp_path / "dpo").glob("best*"))


def test_a_reward_model_ends_where_held_out_pairs_are_in_order(tiny_llama: Path, tmp_path: Path) -> None:
    """Its head is kept with the adapter of the best step: held-out pairs are in the order that was measured there."""
    made = job(
        tmp_path / "reward", tiny_llama, [("yes", "nay")] * 48, [("yes", "nay")] * 8, method="reward", epochs=3.0,
        early_stopping="preference_accuracy", patience=2, evaluations=18,
    )  # fmt: skip
    result = train(made)
    measured = [line for line in telling.lines(tmp_path / "reward" / "progress.jsonl") if "eval_loss" in line]
    best = max(line["eval_preference_accuracy"] for line in measured)
    first = next(line["step"] for line in measured if line["eval_preference_accuracy"] == best)
    assert (result["metrics"]["best_step"], result["metrics"]["stopped_early"]) == (first, 1.0)
    assert result["holdout_after"]["rate"] == best == 1.0


def test_a_run_to_its_end_keeps_its_last_step_where_that_is_best(tiny_llama: Path, tmp_path: Path) -> None:
    """Held-out answers that get likelier to the end: nothing was stopped, and kto's loss is told as well."""
    rows = ["yes"] * 24
    result = train(job(tmp_path / "sft", tiny_llama, rows, ["yes"] * 8, method="sft", early_stopping="loss"))
    assert result["metrics"]["stopped_early"] == 0.0
    assert result["metrics"]["best_step"] == result["steps"] == 6


def test_early_stopping_needs_something_to_stop_by(tiny_llama: Path, tmp_path: Path) -> None:
    """Without a held-out row the run ends at once, and says why."""
    with pytest.raises(TrainingError, match="nothing to stop by"):
        train(job(tmp_path / "none", tiny_llama, ["yes"] * 8, [], method="sft", early_stopping="loss"))


def test_likelihood_that_is_lost_ends_a_run(tiny_llama: Path, tmp_path: Path) -> None:
    """Pairs alike but for a letter, too high a rate, no supervised term: in order, and both answers driven away."""
    letters = random.Random(3)
    words = ["".join(letters.choices("abcdefgh", k=6)) for _ in range(48)]
    # first a model that knows the answers, else there is no likelihood to lose
    known = [f"answer {word} {end}" for word in words for end in "xy"]
    able = job(
        tmp_path / "able", tiny_llama, known, [], method="sft", adapter_type="full", learning_rate=0.003, epochs=6.0,
        batch_size=8,
    )  # fmt: skip
    train(able)
    pairs = [(f"answer {word} x", f"answer {word} y") for word in words]
    made = job(
        tmp_path / "dpo", able.output / "adapter", pairs, [], epochs=4.0, learning_rate=0.01, loss_type=["sigmoid"],
        loss_weights=[1.0],
    )  # fmt: skip
    with pytest.raises(TrainingError, match="nats a token less likely than under the base model"):
        train(made)
    assert list(telling.lines(tmp_path / "dpo" / "progress.jsonl"))[-1]["reward_accuracy"] > 0.9
    assert not (tmp_path / "dpo" / "adapter").exists()


def test_pairs_without_a_difference_end_a_run(tiny_llama: Path, tmp_path: Path) -> None:
    """Better and worse answer are the same tokens: the rewards say nothing, and the run says so."""
    rows = [("same", "same")] * 64
    made = job(tmp_path / "dpo", tiny_llama, rows, [], loss_type=["sigmoid"], loss_weights=[1.0])
    with pytest.raises(TrainingError, match="rewarded exactly alike in each of the last 10 lines"):
        train(made)

"""The job file and the dataset's lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training.encoding import EncodedExample
from ratchet.trainers.training.job import read_rows
from ratchet.trainers.training.methods import balanced, examples, sequences, steps
from ratchet.trainers.training.run import main

ROW = {
    "prompt": [{"role": "user", "content": "q"}],
    "chosen": [{"role": "assistant", "content": "a"}],
    "rejected": [{"role": "assistant", "content": "b"}],
    "weight": 0.5,
    "pair_id": "p1",
    "event_ids": ["e1"],
}


def test_rows_are_read_and_empty_lines_skipped(tmp_path: Path) -> None:
    """One object a line; what only lineage needs is let through."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\n")
    rows = read_rows(path, "dpo")
    assert [row.weight for row in rows] == [0.5, 0.5]
    assert rows[0].chosen[0].content == "a"


@pytest.mark.parametrize("line", ["{", "[]", json.dumps({**ROW, "chosen": []}), json.dumps({**ROW, "weight": -1})])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    """The error names the file and the line."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + line + "\n")
    with pytest.raises(DatasetError, match=r"pairs\.jsonl, line 2"):
        read_rows(path, "dpo")


def test_a_missing_dataset_is_a_dataset_error(tmp_path: Path) -> None:
    """No traceback for a path that is not there."""
    with pytest.raises(DatasetError, match="No such file"):
        read_rows(tmp_path / "none.jsonl", "dpo")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss_weights": [1.0]}, "1 loss_weights for 2 in loss_type"),
        ({"loss_type": ["better"], "loss_weights": [1.0]}, "sigmoid"),
        ({"method": "sft", "precompute_reference": True}, "allowed: with 'dpo' and 'kto'"),
        ({"method": "kto", "batch_size": 1}, "allowed: from 2"),
        ({"method": "kto", "early_stopping": "preference_accuracy"}, "allowed: with 'dpo' and 'reward'"),
        ({"early_stopping": "loss", "evaluations": 0}, "allowed: from 1"),
        ({"method": "grpo", "reward_check": "polite", "evaluations": 3}, "evaluations 3 with method 'grpo'"),
        ({"early_stopping": "speed"}, "early_stopping"),
        ({"method": "grpo"}, "no reward with method 'grpo'; allowed: reward_adapter, reward_check or both"),
        ({"method": "grpo", "reward_adapter": "best"}, "reward_adapter"),
        (
            {"method": "rloo", "reward_check": "c", "num_generations": 3},
            "num_generations 3 with method 'rloo'; allowed: what divides batch_size times gradient_accumulation, 4",
        ),
        ({"method": "grpo", "reward_check": "c", "max_completion_length": 512}, "allowed: below max_length, 512"),
        (
            {"method": "grpo", "reward_check": "c", "adapter_type": "prompt"},
            "allowed: 'lora', 'dora', 'ia3' and 'full'",
        ),
        ({"method": "reward", "adapter_type": "ia3"}, "allowed: 'lora' and 'dora'"),
        ({"method": "reward", "quantization": "nf4"}, "quantization 'nf4' with method 'reward'; allowed: none"),
        (
            {"distributed": {"processes": 2}},
            "distributed with early_stopping or checkpoints; allowed: with checkpoint_s",
        ),
        ({"distributed": {"processes": 1}}, "greater than or equal to 2"),
        ({"accelerator": "unsloth", "adapter_type": "ia3"}, "accelerator 'unsloth' with adapter_type 'ia3'; allowed"),
        ({"method": "dpo", "packing": True}, "packing with method 'dpo'; allowed: with 'sft'"),
        ({"method": "sft", "packing": True, "adapter_type": "prompt"}, "packing with adapter_type 'prompt'"),
        ({"adapter_type": "adalora"}, "'lora', 'dora', 'ia3', 'prefix', 'prompt' or 'full'"),
        ({"adapter_type": "ia3", "rslora": True}, "rslora with adapter_type 'ia3'; allowed: with 'lora' and 'dora'"),
        ({"adapter_type": "ia3", "quantization": "nf4"}, "quantization 'nf4' with adapter_type 'ia3'; allowed"),
        ({"adapter_type": "full", "quantization": "nf4"}, "quantization 'nf4' with adapter_type 'full'; allowed"),
        ({"adapter_type": "prefix", "gradient_checkpointing": True}, "gradient_checkpointing with adapter_type"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(fields: dict[str, Any], said: str) -> None:
    """The error names the fields and what is allowed."""
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(fields)


def test_a_row_is_what_its_method_learns_from(tmp_path: Path) -> None:
    """Supervised rows need no label, rows for kto do, and a pair is neither."""
    example = {"prompt": ROW["prompt"], "completion": ROW["chosen"]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(example) + "\n")
    assert read_rows(path, "sft")[0].completion[0].content == "a"
    with pytest.raises(DatasetError, match="label"):
        read_rows(path, "kto")
    with pytest.raises(DatasetError, match="chosen"):
        read_rows(path, "dpo")


@given(st.lists(st.booleans(), min_size=1))
def test_both_sides_of_kto_count_alike(labels: list[bool]) -> None:
    """However many rows each side has, the weighted counts agree, and no weight is below 1."""
    wanted, unwanted = balanced(Recipe(method="kto"), labels)
    assert min(wanted, unwanted) == 1.0
    if 0 < sum(labels) < len(labels):
        assert wanted * sum(labels) == pytest.approx(unwanted * (len(labels) - sum(labels)))


def test_kto_rows_have_their_neighbours_answer() -> None:
    """Within a batch the answers go round by one; a batch alone would have no mismatch to estimate the KL from."""
    rows = [EncodedExample([1], [number]) for number in range(5)]
    assert [row["KL_completion_ids"] for row in examples(rows, 2)] == [[1], [0], [3], [2], [4]]


def test_only_the_answer_is_learned() -> None:
    """The prompt's tokens are in the sequence, without a label; the end-of-turn token has one."""
    assert sequences([EncodedExample([1, 2], [3, 9])]) == [{"input_ids": [1, 2, 3, 9], "labels": [-100, -100, 3, 9]}]


@given(st.integers(1, 500), st.sampled_from(["sft", "grpo"]), st.integers(1, 8), st.sampled_from([0.5, 1.0, 3.0]))
def test_steps_are_those_of_the_places_that_rows_fill(n: int, method: str, batches: int, epochs: float) -> None:
    """A prompt of grpo fills as many places as it gets answers; every place is gone through ``epochs`` times."""
    recipe = Recipe.model_validate(
        {"method": method, "reward_check": "c", "batch_size": 4 * batches, "num_generations": 4, "epochs": epochs}
    )
    places = n * (4 if method == "grpo" else 1)
    assert steps(recipe, n) >= 1
    assert 0 <= steps(recipe, n) - epochs * places / (4 * batches) < epochs + 1


def test_prompts_are_taken_from_rows_of_every_kind(tmp_path: Path) -> None:
    """For methods that answer by themselves a row is its prompt, whatever else it has."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({"prompt": ROW["prompt"], "completion": ROW["chosen"]}) + "\n")
    assert [row.prompt[0].content for row in read_rows(path, "grpo")] == ["q", "q"]


def test_an_empty_dataset_stops_with_a_reason_and_status_3(tmp_path: Path) -> None:
    """Nothing to learn from: result.json says so, and torch was not even loaded."""
    (tmp_path / "empty.jsonl").write_text("")
    job = {"base_model": str(tmp_path), "dataset": str(tmp_path / "empty.jsonl"), "output": str(tmp_path / "out")}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert main(["--job", str(tmp_path / "job.json")]) == 3
    assert "nothing to learn from" in json.loads((tmp_path / "out" / "result.json").read_text())["error"]


def test_a_wrong_job_file_is_refused_with_the_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and one line that names what is wrong."""
    (tmp_path / "job.json").write_text('{"base_model": "x", "dataset": "y", "output": "z", "extra": 1}')
    assert main(["--job", str(tmp_path / "job.json")]) == 2
    assert "extra" in capsys.readouterr().err

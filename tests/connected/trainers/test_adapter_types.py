"""What can be trained of a model: each type for real on a tiny one, and what was saved is what was trained."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ratchet.schemas.errors import AdapterRefused
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers import registry
from ratchet.trainers.adapters.verifying import verify_placed
from ratchet.trainers.preference_accuracy import completion_logps
from ratchet.trainers.rules.weights import unservable
from ratchet.trainers.training.encoding import encode_example, encode_examples
from ratchet.trainers.training.job import ExampleRow, PreferenceRow, TrainingJob
from ratchet.trainers.training.methods import trainer
from ratchet.trainers.training.model import base_alone, load, load_tokenizer, save
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]

TYPES: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"rslora": True},
    "qlora": {"quantization": "nf4", "optimizer": "paged_adamw_8bit"},
    "dora": {"adapter_type": "dora"},
    "ia3": {"adapter_type": "ia3", "learning_rate": 0.1},
    "prefix": {"adapter_type": "prefix", "virtual_tokens": 4, "learning_rate": 0.1},
    "prompt": {"adapter_type": "prompt", "virtual_tokens": 4, "learning_rate": 0.1},
    "full": {"adapter_type": "full", "optimizer": "paged_adamw_32bit"},
}


def recipe(**settings: Any) -> Recipe:
    """Supervised, in few steps."""
    common = {"method": "sft", "dtype": "float32", "threads": 1, "learning_rate": 0.01, "max_length": 64, "epochs": 3.0}
    return Recipe.model_validate(common | settings)


def lines(n: int) -> list[dict[str, Any]]:
    """Questions of random letters, whose answer is yes."""
    letters = random.Random(3)
    return [
        {
            "prompt": [{"role": "user", "content": "".join(letters.choices("abcdefgh", k=6))}],
            "completion": [{"role": "assistant", "content": "yes"}],
        }
        for _ in range(n)
    ]


def arguments(folder: Path, steps: int, rate: float) -> dict[str, Any]:
    """What the loop itself is told."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": rate,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def logits(model: Any, ids: list[int]) -> Any:
    """The model's last position's."""
    import torch

    model.eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].float()


@pytest.mark.parametrize("name", TYPES)
def test_what_loads_is_what_was_trained(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    """The loss falls, and what was saved, loaded onto a fresh base model, gives the trained model's logits."""
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    told = recipe(**TYPES[name])
    model, tokenizer = load(tiny_llama, told), load_tokenizer(tiny_llama, told)
    encoded, _ = encode_examples(tokenizer, [ExampleRow.model_validate(line) for line in lines(16)], 64)
    made = trainer(told, model, tokenizer, encoded, arguments(tmp_path / "run", 8, told.rate), [])
    asked = encoded[0].prompt_ids
    before = logits(made.model, asked)
    made.train()
    losses = [line["loss"] for line in made.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    after = logits(made.model, asked)
    assert (after - before).abs().max() > 0.02
    with base_alone(made.model):
        alone = logits(made.model, asked)
    assert (alone - after).abs().max() > 0.01 or name == "full"

    sha256 = save(made.model, tokenizer, tmp_path / "saved")
    fresh = load(tmp_path / "saved" if name == "full" else tiny_llama, told)
    if name != "full":
        assert (logits(fresh, asked) - alone).abs().max() < 1e-5
        fresh = PeftModel.from_pretrained(fresh, str(tmp_path / "saved"))
    # QLoRA's adapter is trained in bfloat16 and computes in float32 once it is loaded: the same numbers, rounded less
    assert (logits(fresh, asked) - after).abs().max() < (2e-3 if told.quantization else 1e-5)
    # as anybody loads it who knows nothing of recipes
    plain: Any = AutoModelForCausalLM if name == "full" else AutoPeftModelForCausalLM
    if not told.quantization:
        assert (logits(plain.from_pretrained(str(tmp_path / "saved")), asked) - after).abs().max() < 1e-5

    placed = registry.place(tmp_path, "t", f"job-{name}", tmp_path / "saved", [])
    verify_placed(placed)
    assert placed.weights_sha256 == sha256
    assert placed.name == f"t@v1-{sha256[:8]}"
    files = {file.name for file in placed.folder.iterdir()}
    assert ("model.safetensors" in files) == (name == "full")
    assert ("tokenizer.json" in files) == (name == "full")
    with (placed.folder / ("tokenizer_config.json" if name == "full" else "adapter_config.json")).open("a") as config:
        config.write(" ")
    with pytest.raises(AdapterRefused, match="changed since"):
        verify_placed(placed)


@pytest.mark.parametrize("name", ["qlora", "prompt", "full"])
def test_a_job_of_each_kind_of_model_says_what_it_trained(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    """A whole job by DPO: the held-out figures are there, and the hash is that of the file that it left."""
    pairs = [
        {
            "prompt": line["prompt"],
            "chosen": line["completion"],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for line in lines(20)
    ]
    for part, some in (("train", pairs[:16]), ("holdout", pairs[16:])):
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in some))
    told = recipe(**{**TYPES[name], "method": "dpo"})
    job = TrainingJob(
        base_model=tiny_llama,
        dataset=tmp_path / "train.jsonl",
        holdout=tmp_path / "holdout.jsonl",
        output=tmp_path / "out",
        recipe=told,
    )
    (tmp_path / "out").mkdir()
    result = train(job)
    assert result["metrics"]["loss_last"] < result["metrics"]["loss_first"]
    assert result["metrics"]["reward_margin"] > 0
    assert result["holdout_before"]["n"] == result["holdout_after"]["n"] == 4
    placed = registry.place(tmp_path, "t", "job", tmp_path / "out" / "adapter", [])
    assert placed.weights_sha256 == result["weights_sha256"]


def test_vllm_takes_what_is_called_servable_and_refuses_the_rest(tiny_llama: Path, tmp_path: Path) -> None:
    """Its own reader of adapters agrees with the rule by which we refuse before training."""
    from vllm.lora.peft_helper import PEFTHelper

    for name in ("lora", "rslora", "dora", "ia3", "prefix", "prompt"):
        told = recipe(**TYPES[name])
        model, tokenizer = load(tiny_llama, told), load_tokenizer(tiny_llama, told)
        row = encode_example(tokenizer, ExampleRow.model_validate(lines(1)[0]))
        made = trainer(told, model, tokenizer, [row], arguments(tmp_path / "run", 1, 0.1), [])
        save(made.model, tokenizer, tmp_path / name)
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        try:
            taken = not PEFTHelper.from_dict(config)._validate_features()
        except (TypeError, ValueError):  # a field of LoRA's that other types do not have
            taken = False
        assert taken == (unservable(told.model_dump()) is None), name


def test_prompt_tuning_is_measured_at_the_prompts_own_positions(tiny_llama: Path) -> None:
    """Virtual tokens have logits too: likelihoods of answers are read behind them, not shifted by them."""
    told = recipe(**TYPES["prompt"])
    model, tokenizer = load(tiny_llama, told), load_tokenizer(tiny_llama, told)
    row = PreferenceRow.model_validate(
        {"prompt": lines(1)[0]["prompt"], "chosen": lines(1)[0]["completion"], "rejected": lines(1)[0]["completion"]}
    )
    one = encode_example(tokenizer, ExampleRow(prompt=row.prompt, completion=row.chosen))
    made = trainer(told, model, tokenizer, [one], arguments(Path("unused"), 1, 0.1), [])
    (measured,) = completion_logps(made.model, [(one.prompt_ids, one.completion_ids)], 1)
    ids = one.prompt_ids + one.completion_ids
    by_hand = sum(
        float(logits(made.model, ids[:at]).log_softmax(-1)[ids[at]]) for at in range(len(one.prompt_ids), len(ids))
    )
    assert measured == pytest.approx(by_hand, rel=1e-4)

"""Whole models of an adapter, on a real Llama with random weights: merged, written as GGUF, read back, and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import new_id
from ratchet.schemas.errors import AdapterRefused, TrainingError
from ratchet.schemas.events import Adapter
from ratchet.schemas.rows import row
from ratchet.services.cli.main import app
from ratchet.trainers import registry
from ratchet.trainers.adapters import checking, exporting, merging, quantizing
from ratchet.trainers.adapters.checking import Tolerance
from ratchet.trainers.registry import MANIFEST, WEIGHTS, file_sha256

pytestmark = [pytest.mark.connected, pytest.mark.slow]

TALKS = [
    [
        {"role": "user", "content": f"How do I mend part {n}?"},
        {"role": "assistant", "content": f"Glue {n}, then paint."},
    ]
    for n in range(4)
]


@pytest.fixture(scope="module")
def base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a tokenizer that has merges and cuts texts as SmolLM's does."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    core.train_from_iterator([message["content"] for talk in TALKS for message in talk], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = AutoTokenizer.from_pretrained(tiny_llama).chat_template
    folder = tmp_path_factory.mktemp("models") / "merges"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(tiny_llama, vocab_size=len(tokenizer), num_key_value_heads=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of every linear layer that changes what the tiny Llama answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear", lora_alpha=8)
    )
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.2)
    folder = tmp_path_factory.mktemp("lora")
    model.save_pretrained(str(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def merged(base: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two as one model."""
    out = tmp_path_factory.mktemp("merged") / "whole"
    merging.merge(base, made, out, TALKS, {"adapter": {"name": "support@v1-00000000"}})
    return out


def answers(folder: Path, adapter: Path | None = None) -> list[Any]:
    """The logits of a folder's model, with an adapter or without, on the conversations."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    return checking.logits(model, checking.prompts(AutoTokenizer.from_pretrained(folder), TALKS))


def test_a_merged_model_is_the_unmerged_one(base: Path, made: Path, merged: Path) -> None:
    """The folder alone gives the logits of base and adapter, not the base's; its manifest holds hashes."""
    reference = answers(base, made)
    assert checking.agreement(reference, answers(merged)).max_abs_difference < 1e-4
    assert checking.agreement(reference, answers(base)).max_abs_difference > 0.1
    manifest = merging.sealed(merged)
    assert manifest is not None
    assert manifest["dtype"] == "float32"
    assert manifest["checked"]["prompts"] == len(TALKS)
    assert manifest["checked"]["argmax_agreement"] == 1.0
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= manifest["files"].keys()
    assert manifest["files"]["model.safetensors"] == file_sha256(merged / "model.safetensors")


def test_a_merge_that_answers_otherwise_leaves_nothing(base: Path, made: Path, tmp_path: Path, merged: Path) -> None:
    """Beyond the tolerance, with nothing to compare on, of a kind that has no merge, or over a folder: refused."""
    out = tmp_path / "out"
    with pytest.raises(
        TrainingError, match=r"out: merging changed the model: logits differ by up to .* \(allowed: -1\)"
    ):
        merging.merge(base, made, out, TALKS, {}, {"float32": Tolerance(-1, 0)})
    with pytest.raises(TrainingError, match="no prompt to compare"):
        merging.merge(base, made, out, [], {})
    prompt = tmp_path / "prompt"
    shutil.copytree(made, prompt)
    config = json.loads((prompt / "adapter_config.json").read_text())
    kept = {"base_model_name_or_path", "task_type", "inference_mode"}
    config = {name: config[name] for name in kept} | {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}
    (prompt / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match=r"kind 'prompt_tuning' cannot be merged; allowed: lora, dora, ia3"):
        merging.merge(base, prompt, out, TALKS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompt"]
    with pytest.raises(TrainingError, match="is there already"):
        merging.merge(base, made, merged, TALKS, {})


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_a_gguf_reads_back_as_the_model(merged: Path, tmp_path: Path, quantization: Any) -> None:
    """transformers' own reader finds the same logits and tokens in the file; the Modelfile says template and stop."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    out = tmp_path / "out"
    manifest = exporting.export_gguf(merged, out, "support@v1-0a1b2c3d", quantization, TALKS, "Be brief.", {})
    file = f"support-v1-0a1b2c3d-{quantization}.gguf"
    assert manifest["files"].keys() == {file, "Modelfile"}
    model = AutoModelForCausalLM.from_pretrained(
        out, gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(out, gguf_file=file)
    ours = AutoTokenizer.from_pretrained(merged)
    sequences = checking.prompts(ours, TALKS)
    found = checking.agreement(answers(merged), checking.logits(model, sequences))
    assert found.max_abs_difference < {"f16": 0.01, "q8_0": 0.2}[quantization]
    assert found.argmax_agreement > 0.9
    assert [tokenizer(ours.decode(ids), add_special_tokens=False)["input_ids"] for ids in sequences] == sequences
    assert tokenizer.chat_template == ours.chat_template
    lines = (out / "Modelfile").read_text().splitlines()
    assert lines[0] == f"FROM ./{file}"
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert lines[-1] == 'SYSTEM """Be brief."""'


@pytest.mark.parametrize("quantization", ["f16", "q8_0"])
def test_llama_cpp_answers_as_transformers(merged: Path, tmp_path: Path, quantization: Any) -> None:
    """llama.cpp renders each conversation to as many tokens and finds the probabilities that transformers finds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    exporting.export_gguf(merged, out, "support@v1-0a1b2c3d", quantization, TALKS, None, {})
    questions = [[{"role": "system", "content": "Be brief."}, talk[0]] for talk in TALKS]
    script = Path(__file__).parents[2] / "llama_cpp.py"
    done = subprocess.run(
        [sys.executable, str(script), str(out / f"support-v1-0a1b2c3d-{quantization}.gguf")],
        input=json.dumps(questions), capture_output=True, text=True, check=True,
    )  # fmt: skip
    sequences = checking.prompts(AutoTokenizer.from_pretrained(merged), questions)
    ours = checking.logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32), sequences)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert [one["tokens"] for one in theirs] == [len(ids) for ids in sequences]
    for one, logits in zip(theirs, ours, strict=True):
        expected = torch.log_softmax(logits[-1], -1)
        assert len(one["next"]) == 5
        for token, logprob in one["next"].items():
            assert logprob == pytest.approx(expected[int(token)].item(), abs={"f16": 0.02, "q8_0": 0.1}[quantization])


def test_what_cannot_be_written_is_named(merged: Path, tmp_path: Path) -> None:
    """Another architecture, rotary scaling, tokenizer, chat template, quantization: what is allowed is said."""

    def refused(match: str, prompt: str | None = None, quantization: Any = "f16", **changes: Any) -> None:
        model, out = tmp_path / "model", tmp_path / "out"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(merged, model)
        for file, change in changes.items():
            path = model / f"{file}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | change))
        if "chat" in match:
            (model / "chat_template.jinja").write_text("{{ messages[0].content }}")
        with pytest.raises(TrainingError, match=match):
            exporting.export_gguf(model, out, "support@v1-0a1b2c3d", quantization, TALKS, prompt, {})
        assert not out.exists()

    qwen = {"architectures": ["Qwen2ForCausalLM"]}
    refused("Qwen2ForCausalLM cannot be written as GGUF here; allowed: LlamaForCausalLM", config=qwen)
    scaled = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}}
    refused("rotary scaling 'linear'", config=scaled)
    refused("cuts texts by Whitespace .* allowed: GPT-2's", tokenizer={"pre_tokenizer": {"type": "Whitespace"}})
    refused("chat template renders as none .* allowed: ChatML, Llama 3")
    refused("quantization 'q4_0'; allowed: f16, q8_0", quantization="q4_0")
    refused('holds """', prompt='say """')


def test_quantizing_without_a_gpu_is_refused_before_anything_is_made(merged: Path, tmp_path: Path) -> None:
    """One sentence says what is missing and what this machine can make; an unknown method is named."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    for method in quantizing.METHODS:
        with pytest.raises(TrainingError, match=f"{method} needs a CUDA GPU .* --quantization q8_0"):
            quantizing.quantize(merged, tmp_path / "out", method, TALKS, {}, sys.executable)
    with pytest.raises(TrainingError, match="method 'int3'; allowed: awq, gptq"):
        quantizing.refuse_without_gpu("int3", sys.executable)
    with pytest.raises(TrainingError, match="--python /nowhere/python: it does not run"):
        quantizing.refuse_without_gpu("awq", "/nowhere/python")
    assert list(tmp_path.iterdir()) == []


def test_the_commands(
    store: Store, clickhouse: str, base: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a name to a Modelfile: merged once, checked on the task's evaluation, a changed file refused."""
    config = tmp_path / "ratchet.toml"
    task = f"models-{new_id()[-8:]}"
    config.write_text(
        f'base_model = "tiny"\nbase_model_path = "{base}"\n'
        f'[tasks.{task}]\nsystem_prompt = "Be brief."\nevaluation = "heldout.jsonl"\n'
    )
    (tmp_path / "heldout.jsonl").write_text(json.dumps({"id": "1", "messages": TALKS[0][:1]}) + "\n")
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    home, job = tmp_path / ".ratchet", new_id()
    adapter: Adapter = registry.register(
        registry.place(home, task, job, made, []),
        task=task, job_id=job, at=datetime.now(UTC), method="dpo", base_model="tiny", dataset="d",
        dataset_sha256="0" * 64, parents=[], params={}, metrics={}, evaluation={},
    )  # fmt: skip
    stored = row(adapter)
    assert stored is not None
    store.insert_rows(*(stored[0], [stored[1]]))

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["adapters", *arguments, adapter.name, "--json"], catch_exceptions=False)
        return json.loads(done.stdout)

    exported = run("export", "--quantization", "q8_0")
    assert Path(exported["path"]) == home / "exports" / f"{adapter.name}-q8_0"
    assert exported["adapter"] == {"name": adapter.name, "weights_sha256": adapter.weights_sha256, "dataset": "d"}
    assert 'SYSTEM """Be brief."""' in (Path(exported["path"]) / "Modelfile").read_text()
    folder = home / "merged" / adapter.name
    before = (folder / MANIFEST).read_bytes()
    assert run("merge")["files"] == json.loads(before)["files"]
    assert (folder / MANIFEST).read_bytes() == before, "made once"
    (folder / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"changed since it was made: config\.json"):
        run("merge")
    (Path(adapter.path) / WEIGHTS).write_bytes(b"other")
    with pytest.raises(AdapterRefused, match="was changed since it was registered"):
        run("merge", "--out", str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()
    with pytest.raises(TrainingError, match="needs a CUDA GPU"):
        run("quantize")

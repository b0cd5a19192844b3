"""What is scored on weights: a regression task, an adapter that changes what its model says, held-out pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TASK = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "The colour of {{{{thing}}}} is"
doc_to_choice: ["red", "green"]
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def colours(folder: Path, n: int = 6) -> Path:
    """A regression task of the user's own: a YAML file and its examples beside it."""
    data = folder / "colours.jsonl"
    data.write_text("".join(json.dumps({"thing": f"thing {one}", "answer": one % 2}) + "\n" for one in range(n)))
    file = folder / "colours.yaml"
    file.write_text(TASK.format(data=data))
    return file


def adapter(model: Path, folder: Path) -> Path:
    """An adapter that changes what the model says: its matrices are random, not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(model)),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False),
    )
    made.save_pretrained(str(folder))
    return folder


def pairs(file: Path, n: int = 8) -> Path:
    """Held-out pairs."""
    rows: list[dict[str, Any]] = [
        {
            "prompt": [{"role": "user", "content": f"ask {one}"}],
            "chosen": [{"role": "assistant", "content": f"yes {one}"}],
            "rejected": [{"role": "assistant", "content": "no way"}],
        }
        for one in range(n)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file

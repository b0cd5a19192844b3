"""A DPO run as a script over TRL has it, without Ratchet: what Ratchet's run is compared with.

Run: ``python tests/plain_dpo.py JOB.json``: the job file of Ratchet's run, of which the recipe's fields are read as
they stand. Its last line of output is JSON: loss and gradient norm of every step.

The rows are texts that the chat template rendered, to which TRL adds the end of turn. (Given messages, TRL lets an
answer end in the template's newline, which serving never gets to.)
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any


def run(job: dict[str, Any]) -> list[dict[str, float]]:
    """Train; gives TRL's log, a line a step."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    recipe = job["recipe"]
    torch.set_num_threads(recipe["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["base_model"])
    rows = [json.loads(line) for line in Path(job["dataset"]).read_text().splitlines()]
    texts = [
        {
            "prompt": tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False),
            "chosen": row["chosen"][0]["content"],
            "rejected": row["rejected"][0]["content"],
        }
        for row in rows
    ]
    steps = math.ceil(len(rows) / recipe["batch_size"])
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(job["base_model"], dtype=recipe["dtype"]),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(texts),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=DPOConfig(
            output_dir=job["output"],
            num_train_epochs=1,
            per_device_train_batch_size=recipe["batch_size"],
            learning_rate=recipe["learning_rate"],
            warmup_steps=math.ceil(0.1 * steps),
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, 1.0],
            max_length=recipe["max_length"],
            seed=recipe["seed"],
            data_seed=recipe["seed"],
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.train()
    trainer.save_model(str(Path(job["output"]) / "adapter"))
    return [
        {"loss": line["loss"], "grad_norm": line["grad_norm"]} for line in trainer.state.log_history if "loss" in line
    ]


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))

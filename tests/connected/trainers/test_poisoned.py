"""One user floods a task with feedback that turns it round: from stored events to what a model learns."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import new_id
from ratchet.infra.settings import Settings
from ratchet.schemas.events import Event, Feedback, Inference
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row
from ratchet.schemas.training_policy import Recipe
from ratchet.services.datasets import build_dataset
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.run import train

pytestmark = [pytest.mark.connected, pytest.mark.slow]

START = datetime(2026, 11, 1, tzinfo=UTC)
HONEST, POISON, CAP = 24, 36, 6
"""Users who each correct one answer to blue; one user's corrections to red, 60% of all; what one user may decide."""


def question(words: random.Random) -> str:
    """Three random words, so that no two questions are near duplicates."""
    return " ".join("".join(words.choices("abcdefgh", k=5)) for _ in range(3))


def flooded(store: Store) -> str:
    """Store the events of a task, the flood among the rest; gives the task."""
    task, words = f"t{uuid.uuid4().hex[:8]}", random.Random(1)
    said = [(f"user{number}", "blue") for number in range(HONEST)] + [("mallory", "red")] * POISON
    words.shuffle(said)
    tables: dict[str, list[dict[str, Any]]] = {}
    for number, (user, wanted) in enumerate(said):
        at = START + timedelta(hours=number)
        call: dict[str, Any] = {
            "id": new_id(), "at": at, "task": task, "adapter": "base", "conversation_id": f"c{number}",
            "base_model": "m", "stage": "stable", "status": "ok", "latency_ms": 1, "source": "gateway",
            "request": {"messages": [{"role": "user", "content": question(words)}]},
            "response": {"content": "red" if wanted == "blue" else "blue"},
        }  # fmt: skip
        word = {"id": new_id(), "at": at, "task": task, "inference_id": call["id"], "kind": "correction"}
        word |= {"value": wanted, "user": user, "source": "gateway"}
        events: list[Event] = [Inference.model_validate(call), Feedback.model_validate(word)]
        for stored in map(row, events):
            assert stored is not None
            tables.setdefault(stored[0], []).append(stored[1])
    for table, rows in tables.items():
        store.insert_rows(table, rows)
    return task


def wanted_by(dataset: Dataset) -> Counter[str]:
    """The better answers of a version's training rows."""
    return Counter(one["chosen"][0]["content"] for one in dataset.rows("train"))


def learned(dataset: Dataset, model: Path, folder: Path) -> dict[str, Any]:
    """Train on a version; how many of 16 new questions have blue before red then."""
    folder.mkdir()
    words = random.Random(2)
    blue, red = ([{"role": "assistant", "content": text}] for text in ("blue", "red"))
    with (folder / "holdout.jsonl").open("w") as lines:
        for _ in range(16):
            prompt = [{"role": "user", "content": question(words)}]
            lines.write(json.dumps({"prompt": prompt, "chosen": blue, "rejected": red}) + "\n")
    recipe = Recipe(dtype="float32", threads=1, learning_rate=0.01, max_length=64, epochs=2.0)
    job = TrainingJob(
        base_model=model,
        dataset=dataset.file("train"),
        holdout=folder / "holdout.jsonl",
        output=folder,
        recipe=recipe,
    )
    result: dict[str, Any] = train(job)["holdout_after_per_token"]
    return result


def built(store: Store, home: Path, task: str, pairing: int, dataset: int | None) -> Dataset:
    """A version of all that is stored, with these caps where pairs are made and where datasets are."""
    policy = {"pairing": {"holdout": 0.0, "max_pairs_per_user": pairing}, "dataset": {"max_per_user": dataset}}
    return build_dataset(Settings(home=home, tasks={task: TaskPolicy.model_validate(policy)}), store, task)


@pytest.mark.parametrize(("pairing", "dataset"), [(CAP, None), (1_000, CAP)])
def test_a_user_who_decides_most_pairs_is_cut_to_the_cap(
    pairing: int, dataset: int | None, store: Store, tiny_llama: Path, tmp_path: Path
) -> None:
    """Each of the two caps alone cuts the flood to its share, and what is learned is the others' word."""
    capped = built(store, tmp_path, flooded(store), pairing, dataset)
    assert wanted_by(capped) == {"blue": HONEST, "red": CAP}
    assert capped.manifest["dropped"]["user_cap"] == POISON - CAP
    assert learned(capped, tiny_llama, tmp_path / "capped")["k"] == 16


def test_without_caps_the_flood_is_learned(store: Store, tiny_llama: Path, tmp_path: Path) -> None:
    """The flood is one that would turn the model round: without it the test of the caps would show nothing."""
    uncapped = built(store, tmp_path, flooded(store), 1_000, None)
    assert wanted_by(uncapped) == {"blue": HONEST, "red": POISON}
    assert learned(uncapped, tiny_llama, tmp_path / "uncapped")["k"] < 8

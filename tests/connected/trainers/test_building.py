"""From stored thumbs, ratings, outcomes and corrections to datasets for SFT and KTO, over ClickHouse's engine."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.consumers.pairs import derive_all
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import new_id
from ratchet.infra.settings import Settings
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Feedback, Inference
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row
from ratchet.services.datasets import build_dataset, import_dataset
from ratchet.trainers.building import Recipe, build
from ratchet.trainers.evaluation.held_out import EvaluationSet
from ratchet.trainers.measuring import token_counter
from ratchet.trainers.rules.dataset import Candidate

START = datetime(2026, 11, 1, tzinfo=UTC)


class Desk:
    """A task whose answers get feedback."""

    def __init__(self, store: Store) -> None:
        self.store, self.task, self.n = store, f"t{uuid.uuid4().hex[:8]}", 0

    def answered(self, prompt: str, content: str) -> str:
        """An answer of the model; its id."""
        self.n += 1
        made = Inference.model_validate(
            {
                "id": new_id(), "at": START + timedelta(hours=self.n), "task": self.task, "adapter": "base",
                "conversation_id": f"c{self.n}", "base_model": "m", "stage": "stable", "status": "ok",
                "request": {"messages": [{"role": "user", "content": prompt}]}, "response": {"content": content},
                "latency_ms": 1, "source": "gateway",
            }
        )  # fmt: skip
        self._insert(made)
        return made.id

    def said(self, inference_id: str, kind: str, value: Any) -> None:
        """Feedback on an answer, of a user of its own."""
        made = {"id": new_id(), "at": START + timedelta(days=9), "task": self.task, "kind": kind, "value": value}
        made |= {"inference_id": inference_id, "user": uuid.uuid4().hex, "source": "gateway"}
        self._insert(Feedback.model_validate(made))

    def _insert(self, event: Inference | Feedback) -> None:
        stored = row(event)
        assert stored is not None
        self.store.insert_rows(stored[0], [stored[1]])


@pytest.fixture
def desk(store: Store) -> Desk:
    """A task with every sort of feedback: two thumbs that pair, and some that do not."""
    desk = Desk(store)
    good, bad = desk.answered("Where is it?", "In the shed."), desk.answered("Where is it?", "No idea.")
    desk.said(good, "thumb", True)
    desk.said(bad, "thumb", False)
    desk.said(desk.answered("How much is it?", "Ten."), "thumb", True)
    desk.said(desk.answered("How long is it?", "Long."), "thumb", False)
    desk.said(desk.answered("How old is it?", "Old."), "rating", 0.9)
    desk.said(desk.answered("Who made it?", "Somebody."), "rating", 0.5)
    desk.said(desk.answered("Can I have it?", "Yes."), "outcome", True)
    desk.said(desk.answered("What is it?", "A thing."), "correction", "A lamp.")
    derive_all(store, desk.task, PairingPolicy(holdout=0.0))
    return desk


def test_each_kind_takes_its_feedback(store: Store, desk: Desk, tmp_path: Path) -> None:
    """SFT learns corrections, chosen and liked answers; KTO what no pair was made of; each is counted."""
    pairing = PairingPolicy(holdout=0.0)

    recipe = Recipe(pairing=pairing)
    pairs = build(store, tmp_path, desk.task, START, recipe=recipe)
    sft = build(store, tmp_path, desk.task, START, kind="sft", recipe=recipe)
    kto = build(store, tmp_path, desk.task, START, kind="kto", recipe=recipe)
    assert [one.kind for one in (pairs, sft, kto)] == ["preference", "sft", "kto"]
    answers = {row["completion"][0]["content"]: row["source"] for row in sft.rows("train")}
    assert answers == {"In the shed.": "thumb", "Ten.": "thumb", "A lamp.": "correction"}
    labels = {row["completion"][0]["content"]: (row["label"], row["source"]) for row in kto.rows("train")}
    assert labels == {
        "Ten.": (True, "thumb"),
        "Long.": (False, "thumb"),
        "Old.": (True, "rating"),
        "Yes.": (True, "outcome"),
    }
    assert kto.manifest["dropped"] == {"middling": 1, "paired": 2}
    assert sft.manifest["dropped"] | {"duplicate": 1} == sft.manifest["dropped"]
    assert all(row["event_ids"] and row["conversation_id"] for row in kto.rows("train"))
    assert [step["filter"] for step in kto.manifest["steps"]][:2] == ["too_short", "error_text"]
    assert build(store, tmp_path, desk.task, START, kind="kto", recipe=recipe).version == kto.version


def test_a_split_by_time_is_made_before_pairing(store: Store, desk: Desk, tmp_path: Path) -> None:
    """With the latest conversation held out by the policy, the version says since when, and KTO splits likewise."""
    policy = TaskPolicy.model_validate({"pairing": {"holdout": 0.25, "holdout_by": "time"}})
    settings = Settings(home=tmp_path, tasks={desk.task: policy})
    built = build_dataset(settings, store, desk.task)
    assert [row["chosen"][0]["content"] for row in built.rows("holdout")] == ["A lamp."]
    assert built.manifest["filters"]["split_by"] == "time"
    since = datetime.fromisoformat(built.manifest["filters"]["holdout_since"])
    assert START < since < START + timedelta(days=1)


def test_a_file_becomes_a_version_and_is_added_to(store: Store, tmp_path: Path) -> None:
    """What a version holds out stays held out when a file is added, also where the file asks it nearly so."""
    task = f"t{uuid.uuid4().hex[:8]}"
    settings = Settings(home=tmp_path)
    lines = [f'{{"user": "Question {n} about the {n}th boat of all", "assistant": "Answer {n}."}}\n' for n in range(40)]
    (tmp_path / "one.jsonl").write_text("".join(lines))
    first, bad = import_dataset(settings, store, task, tmp_path / "one.jsonl", "turns", holdout=0.2)
    assert (first.kind, first.manifest["imported"]["rows"], bad) == ("sft", 40, [])
    held = first.rows("holdout")
    assert 2 <= len(held) <= 14
    asked = held[0]["prompt"][0]["content"]
    (tmp_path / "two.jsonl").write_text(
        f'{{"user": "{asked}!", "assistant": "Another."}}\n{{"user": "Quite a new one", "assistant": "Yes."}}\n'
    )
    second, _ = import_dataset(settings, store, task, tmp_path / "two.jsonl", "turns", into=first, holdout=0.0)
    assert second.manifest["parent"] == first.version
    assert second.rows("holdout") == held
    assert len(second.rows("train")) == len(first.rows("train")) + 1
    assert second.manifest["dropped"] == {"near_holdout": 1}
    with pytest.raises(DatasetError, match=r"sft rows of task.*gives preference rows"):
        import_dataset(settings, store, task, tmp_path / "two.jsonl", "preference", into=first)


def test_training_refuses_a_version_that_a_new_evaluation_touches(store: Store, desk: Desk, tmp_path: Path) -> None:
    """Evaluation prompts that were frozen after a version was built are found in it before it is trained on."""
    built = build(store, tmp_path, desk.task, START, kind="sft")
    (tmp_path / "frozen.jsonl").write_text(
        '{"id": "1", "messages": [{"role": "user", "content": "How much is it?"}]}\n'
    )
    frozen = EvaluationSet.of(tmp_path / "frozen.jsonl")
    with pytest.raises(DatasetError, match="trains on 1 prompts of the task's frozen evaluation"):
        frozen.refuse_touched(built)

    again = build(store, tmp_path, desk.task, START, kind="sft", recipe=Recipe(evaluation=frozen))
    frozen.refuse_touched(again)
    assert again.manifest["dropped"]["prompt_in_evaluation"] == 1


def test_length_counts_the_template(tiny_llama: Path) -> None:
    """A row is as long as its rendered prompt, its answer and the end of turn, by the model's own tokenizer."""
    from transformers import AutoTokenizer

    made = {"example_id": "1", "prompt": [{"role": "user", "content": "hi"}]}
    made["completion"] = [{"role": "assistant", "content": "yes"}]
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    count = token_counter(tiny_llama)(Candidate(made, "c", "thumb", holdout=False))
    assert count == len(tokenizer(rendered, add_special_tokens=False)["input_ids"])

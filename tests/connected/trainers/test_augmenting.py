"""`ratchet dataset augment`, `review` and `mix`: a real HTTP endpoint writes, a person accepts, a version has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, says
from typer.testing import CliRunner

from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.errors import DatasetError, SettingsError
from ratchet.services.cli.main import app
from ratchet.trainers import dataset as datasets
from ratchet.trainers.dataset import Dataset, make
from ratchet.trainers.forgetting import Mine, copies, remove

CITIES = ["Oslo", "Rome", "Bergen", "Turin", "Malmö", "Lyon", "Porto", "Gdańsk", "Riga", "Ghent", "Basel", "Split"]


def row(n: int, side: str) -> dict[str, Any]:
    """A pair of a conversation of its own, about an order that no other row has."""
    return {
        "pair_id": f"correction:{side}{n}",
        "prompt": [
            {"role": "user", "content": f"Where is the parcel number {side}{n} that I sent to {CITIES[n % 12]}?"}
        ],
        "chosen": [{"role": "assistant", "content": f"It is in {CITIES[n % 12]} since day {n}."}],
        "rejected": [{"role": "assistant", "content": f"I do not have number {n}."}],
        "weight": 1.0,
        "confidence": 1.0,
        "source": "correction",
        "event_ids": [f"event-{side}{n}"],
        "conversation_id": f"{side}{n}",
    }


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """An LLM that says the last message in other words; of every fifth it makes prose."""

    def answer(body: dict[str, Any]) -> Any:
        asked = json.loads(body["messages"][1]["content"])["conversation"][-1]["content"]
        if "4 " in asked:
            return says("I would rather not.")
        return says(json.dumps({"prompt": f"Please tell me what became of it, namely: {asked.lower()}"}))

    made = JudgeServer(answer)
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path, clickhouse: str, server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose settings name the LLM."""
    config = tmp_path / "ratchet.toml"
    config.write_text(f'home = "home"\n[judges.writer]\nurl = "{server.url}"\nmodel = "llm"\n')
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    return tmp_path / "home"


def version(store: Store, home: Path) -> Dataset:
    """Twenty pairs to train on, and four held out."""
    sides = {"train": [row(n, "t") for n in range(20)], "holdout": [row(n, "h") for n in range(4)]}
    return make(store, home, "desk", "preference", sides, datetime.now(UTC), {"parent": None})


def run(*arguments: str) -> Any:
    """A command's JSON."""
    done = CliRunner().invoke(app, ["dataset", *arguments, "--json"])
    assert done.exception is None, done.exception
    return json.loads(done.output)


def test_proposals_are_in_no_version_before_a_person_accepted_them(store: Store, home: Path) -> None:
    """Proposed, looked at one by one, mixed in: marked, with lineage, at most 30%, and never from the held-out side."""
    parent = version(store, home)
    proposed = run("augment", parent.version, "--by", "writer", "--n", "20")
    assert (proposed["proposed"], len(proposed["failed"])) == (18, 2)
    assert "no JSON" in proposed["failed"][0]
    refused = CliRunner().invoke(app, ["dataset", "mix", parent.version, "--batch", proposed["batch"]]).exception
    assert isinstance(refused, DatasetError)
    assert "0 accepted rows" in str(refused)
    ids = [one["row"]["pair_id"] for one in run("review", proposed["batch"])["proposals"]]
    asked = CliRunner().invoke(app, ["dataset", "review", proposed["batch"]], input="a\nr\nq\n")
    assert "1 accepted, 1 rejected" in asked.output.replace("16 proposed, ", "")
    run("review", proposed["batch"], *(part for id in ids[2:] for part in ("--accept", id)))
    mixed = run("mix", parent.version, "--batch", proposed["batch"])
    assert (mixed["built"]["train"], mixed["built"]["holdout"], mixed["parent"]) == (28, 4, parent.version)
    rows = datasets.find(home, mixed["version"]).rows("train")
    made = [one for one in rows if one.get("synthetic")]
    assert len(made) == 8
    assert len(made) <= 0.3 * len(rows)
    assert all(one["made_from"].startswith("correction:t") and one["event_ids"] for one in made)
    assert ids[1] not in {one["pair_id"] for one in made}, "it was rejected"
    again = CliRunner().invoke(app, ["dataset", "mix", mixed["version"], "--batch", proposed["batch"]]).exception
    assert isinstance(again, DatasetError)
    assert "no room" in str(again)


def test_whoever_asks_to_be_forgotten_is_found_among_the_proposals(store: Store, home: Path) -> None:
    """A batch with a row made of a user's event is one of the files that a deletion request removes."""
    parent = version(store, home)
    batch = run("augment", parent.version, "--by", "writer", "--n", "20")["batch"]
    (file,) = copies(home, Mine(frozenset({"event-t1"}), "nobody"))
    assert file == home / "augmented" / "desk" / f"{batch}.jsonl"
    assert copies(home, Mine(frozenset({"event-h1"}), "nobody")) == []
    remove([file])
    assert not file.exists()


def test_what_cannot_be_is_one_sentence(store: Store, home: Path) -> None:
    """Another writer, batch or row than there is; more than the allowed share."""
    parent = version(store, home)
    for arguments, said in (
        (("augment", parent.version, "--by", "nobody"), "--by 'nobody'; allowed: writer"),
        (("review", "ffff"), "batch 'ffff' names 0 batches"),
    ):
        failed = CliRunner().invoke(app, ["dataset", *arguments]).exception
        assert isinstance(failed, DatasetError | SettingsError)
        assert said in str(failed)
    batch = run("augment", parent.version, "--by", "writer", "--n", "3")["batch"]
    failed = CliRunner().invoke(app, ["dataset", "review", batch, "--accept", "nothing"]).exception
    assert "no proposal 'nothing'" in str(failed)
    too_much = CliRunner().invoke(app, ["dataset", "mix", parent.version, "--batch", batch, "--share", "0.5"])
    assert too_much.exit_code == 2

"""From stored feedback to a dataset version, over ClickHouse's engine."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.consumers.pairs import derive_all
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.dataset_policy import DatasetPolicy
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Event
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.rows import row
from ratchet.services.importing import jsonl
from ratchet.services.importing.records import load_map
from ratchet.trainers import dataset as datasets
from ratchet.trainers.building import Recipe, build
from ratchet.trainers.rules.dataset import question

pytestmark = pytest.mark.connected
ROOT = Path(__file__).resolve().parents[3]
PANDALM = ROOT.parent / "shared" / "data" / "pandalm-testset-v1.json"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
UNCAPPED = PairingPolicy(max_pairs_per_user=10**9)
UNCAPPED_ROWS = DatasetPolicy().uncapped()


def _insert(store: Store, events: list[Event]) -> None:
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        made = row(event)
        assert made is not None
        tables[made[0]].append(made[1])
    for table, rows in tables.items():
        store.insert_rows(table, rows)


def _pair(task: str, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "pair_id": f"{task}-{number}",
        "task": task,
        "at": "2026-11-01 00:00:00.000000",
        "source": "correction",
        "status": "built",
        "reason": "",
        "split": "holdout" if number % 5 == 0 else "train",
        "conversation_id": f"c{number}",
        "prompt": f'[{{"role":"user","content":"question {number}"}}]',
        "chosen": '[{"role":"assistant","content":"good"}]',
        "rejected": '[{"role":"assistant","content":"bad"}]',
        "weight": 1.0,
        "confidence": 1.0,
        "votes": 1,
        "event_ids": [],
        "version": 1,
    } | changes


def test_pandalm_becomes_a_dataset_without_a_shared_instruction(store: Store, tmp_path: Path) -> None:
    """999 records give majority pairs, ties and conflicts counted, no instruction on both sides, one version."""
    if not PANDALM.is_file():
        pytest.skip(f"no PandaLM test set at {PANDALM}")
    mapping, publisher = load_map(ROOT / "examples" / "pandalm.toml"), MemoryPublisher()
    report = jsonl.check(PANDALM, mapping)
    jsonl.publish(PANDALM, mapping, report, publisher)
    for _ in range(2):  # imported twice: each event counts once
        _insert(store, publisher.events)
    jsonl.wait_stored(PANDALM, mapping, report, store, timeout_s=0)
    assert report.stored == 4995
    counts = derive_all(store, "pandalm", UNCAPPED)
    assert counts.built + sum(counts.dropped.values()) == 999
    assert counts.dropped["tie"] > 0

    built = build(store, tmp_path, "pandalm", NOW, recipe=Recipe(policy=UNCAPPED_ROWS))
    assert sum(built.manifest["built"].values()) + sum(built.manifest["dropped"].values()) == 999
    assert built.manifest["conflicts"]["outvoted"] > 0
    prompts = [{question(one["prompt"]) for one in built.rows(side)} for side in datasets.SIDES]
    assert prompts[0]
    assert prompts[1]
    assert not prompts[0] & prompts[1]
    again = build(store, tmp_path, "pandalm", NOW, recipe=Recipe(policy=UNCAPPED_ROWS))
    assert again.version == built.version
    assert len(datasets.versions(tmp_path)) == 1
    (logged,) = [one for one in store.query_sql("SELECT * FROM ratchet.datasets WHERE task = 'pandalm'")]
    assert (logged["version"], logged["sha256"]) == (built.version, built.sha256)


def test_no_conversation_is_on_both_sides(store: Store, tmp_path: Path) -> None:
    """Pairs whose conversation is held out anywhere are nowhere in training, even if a row says so."""
    task = f"t{uuid.uuid4().hex[:8]}"
    pairs = [_pair(task, n, conversation_id=f"c{n % 20}") for n in range(60)]
    store.insert_rows("pairs_log", pairs)
    built = build(store, tmp_path, task, NOW)
    talks = {pair["pair_id"]: pair["conversation_id"] for pair in pairs}
    train, held = ({talks[one["pair_id"]] for one in built.rows(side)} for side in datasets.SIDES)
    assert train
    assert held
    assert not train & held


def test_new_pairs_make_a_version_with_a_parent(store: Store, tmp_path: Path) -> None:
    """More data is another version, whose parent is the one before; both stay as they are."""
    task = f"t{uuid.uuid4().hex[:8]}"
    store.insert_rows("pairs_log", [_pair(task, n) for n in range(10)])
    first = build(store, tmp_path, task, NOW)
    store.insert_rows("pairs_log", [_pair(task, 11), _pair(task, 12, status="dropped", reason="tie")])
    second = build(store, tmp_path, task, NOW.replace(day=23))
    assert (first.manifest["parent"], second.manifest["parent"]) == (None, first.version)
    assert second.manifest["dropped"] == {"tie": 1}
    added, removed, changed = datasets.rules.difference(first.rows("train"), second.rows("train"))
    assert (added, removed, changed) == ([f"{task}-11"], [], [])
    assert datasets.find(tmp_path, first.version[:6]).rows("train") == first.rows("train")


def test_changed_file_is_refused(store: Store, tmp_path: Path) -> None:
    """Training data that was edited after it was built is not read."""
    task = f"t{uuid.uuid4().hex[:8]}"
    store.insert_rows("pairs_log", [_pair(task, n) for n in range(10)])
    built = build(store, tmp_path, task, NOW)
    built.file("train").write_bytes(built.file("train").read_bytes().replace(b"good", b"evil"))
    with pytest.raises(DatasetError, match="changed since"):
        built.rows("train")


def test_nothing_to_train_on_says_why(store: Store, tmp_path: Path) -> None:
    """A task without pairs is refused with the reasons of what was left out."""
    task = f"t{uuid.uuid4().hex[:8]}"
    store.insert_rows("pairs_log", [_pair(task, 1, status="dropped", reason="identical")])
    with pytest.raises(DatasetError, match=r"no pair to train on.*identical"):
        build(store, tmp_path, task, NOW)
    with pytest.raises(DatasetError, match="names 0 versions"):
        datasets.find(tmp_path, "abc")

"""`ratchet adapters lineage` on ClickHouse's engine and real dataset versions: down to the events, and up from one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from ratchet.consumers.pairs import derive_all
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import new_id, now
from ratchet.schemas.decoding import EVENTS, parse
from ratchet.schemas.events import Event
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.publish import HERE
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.cli.main import app
from ratchet.trainers.building import build
from ratchet.trainers.rules.dataset import made_of, subset

GOLDEN = HERE.parent / "golden"
N = 12
MOST = 4


def golden(name: str, **changes: Any) -> Any:
    """A golden message under an id and a time of its own."""
    value = orjson.loads((GOLDEN / f"{name}.json").read_bytes())
    return parse(EVENTS[name], orjson.dumps(value | {"id": new_id(), "at": now()} | changes))


@pytest.fixture
def at(traffic: Any, clickhouse: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine whose settings name this ClickHouse and the traffic's folder as its home."""
    config = traffic.shelf / "ratchet.toml"
    config.write_text(f"home = {json.dumps(str(traffic.shelf))}\n[tasks.{traffic.task}]\n")
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    return traffic


def lineage(*arguments: str) -> Any:
    """The command's JSON."""
    done = CliRunner().invoke(app, ["adapters", "lineage", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def corrected(at: Any) -> list[tuple[Event, Event]]:
    """Answers with the correction that a user gave of each."""
    made = []
    for number in range(N):
        asked = {"messages": [{"role": "user", "content": f"How do I mend part {number} of my boat?"}], "params": {}}
        about = {"task": at.task, "conversation_id": f"c{number}", "user": f"u{number}", "request": asked}
        answer = golden("inference.v1", **about)
        vote = golden(
            "feedback.v1", task=at.task, inference_id=answer.id, compared_with=None, kind="correction",
            user=f"u{number}", value=f"Glue {number}, then paint {number}.",
        )  # fmt: skip
        made.append((answer, vote))
    at.write(*(event for both in made for event in both))
    return made


def test_down_to_the_events_and_up_again(at: Any) -> None:
    """Every row's events are found from the adapter, and from each event the versions and the adapters that saw it."""
    store: Store = at.store
    home: Path = at.shelf
    events = corrected(at)
    derive_all(store, at.task, PairingPolicy(holdout=0.25))
    dataset = build(store, home, at.task, now())
    rows = {side: dataset.rows(side) for side in ("train", "holdout")}
    first = at.adapter(1).model_copy(update={"dataset": dataset.version, "dataset_sha256": dataset.sha256})
    part = {"dataset": dataset.version, "params": {"max_pairs": MOST}, "parents": [first.name]}
    second = at.adapter(2).model_copy(update=part)
    rewarded = {"params": {"reward_adapter": second.name}, "parents": [second.name]}
    third = at.adapter(3).model_copy(update={"dataset": "000000000000"} | rewarded)
    table = Rollout.model_validate(
        {
            "id": new_id(), "at": at.start, "task": at.task, "rollout_id": new_id(), "version": 1, "status": "running",
            "stage": "20%", "stage_started_at": at.start, "stable": "base", "candidate": first.name, "action": "start",
        }
    )  # fmt: skip
    promoted = table.model_copy(
        update={"id": new_id(), "version": 2, "status": "promoted", "action": "promote", "stable": first.name}
    )
    undone = promoted.model_copy(
        update={
            "id": new_id(),
            "version": 3,
            "action": "undo",
            "stable": "base",
            "previous": first.name,
            "candidate": None,
        }
    )
    elsewhere = undone.model_copy(
        update={"id": new_id(), "version": 4, "action": "start", "candidate": second.name, "previous": None}
    )
    at.write(first, second, third, table, promoted, undone, elsewhere)
    at.calls(table, "canary", at.start, 7)

    down = lineage(first.name)
    assert {id for ids in down["trained"]["events"].values() for id in ids} == {
        id for row in rows["train"] for id in made_of(row)
    }
    assert down["trained"]["n"] == len(rows["train"])
    assert down["held_out"]["n"] == len(rows["holdout"])
    assert down["trained"]["n"] + down["held_out"]["n"] == N
    assert set(down["trained"]["events"]) <= {"feedback", "inference"}
    assert (down["children"], down["ancestors"], down["missing"]) == ([second.name], [], "")
    assert [step["action"] for step in down["rollouts"]] == ["start", "promote", "undo"]
    assert [(row["stage"], row["n"]) for row in down["answers"]] == [("canary", 7)]
    lost = lineage(third.name)
    assert (lost["trained"], lost["ancestors"]) == (None, [second.name, first.name])
    assert "dataset version '000000000000' names 0 versions" in lost["missing"]

    some = {row["pair_id"] for row in subset(rows["train"], MOST)}
    assert lineage(second.name)["trained"]["ids"] == sorted(some)
    held = {id for row in rows["holdout"] for id in made_of(row)}
    for _, vote in events:
        up = lineage("--event", vote.id.upper())
        assert up["kind"] == "feedback"
        (pair,) = up["pairs"]
        (seen,) = up["datasets"]
        assert seen["version"] == dataset.version
        assert [id for ids in seen["rows"].values() for id in ids] == [pair["pair_id"]]
        # the third one had no row of it, and learned from the word of the second, which may have had some
        wanted = ("held_out",) * 2 if vote.id in held else ("trained", "left_out")
        if pair["pair_id"] in some:
            wanted = ("trained", "trained", "rewarded")
        assert tuple(one["saw"] for one in seen["adapters"]) == wanted
        assert [(row["adapter"], row["n"]) for row in up["answers"]] == (
            [(first.name, 7)] if "trained" in wanted else []
        )
        assert lineage("--event", pair["pair_id"])["datasets"] == [seen]
    unknown = lineage("--event", new_id())
    assert (unknown["kind"], unknown["pairs"], unknown["datasets"]) == ("not stored any more", [], [])


def test_a_tree_for_people(at: Any) -> None:
    """The text has the counts, lists ids when asked, and refuses an unknown name and no question in one sentence."""
    events = corrected(at)
    derive_all(at.store, at.task, PairingPolicy(holdout=0.0))
    dataset = build(at.store, at.shelf, at.task, now())
    adapter = at.adapter(1).model_copy(update={"dataset": dataset.version})
    at.write(adapter)
    run = CliRunner().invoke
    text = run(app, ["adapters", "lineage", adapter.name]).stdout
    assert f"trained on: {N} rows ({N} correction)" in text
    assert f"{N} events: feedback" in text
    vote = events[0][1].id
    assert vote not in text
    assert vote in run(app, ["adapters", "lineage", adapter.name, "--events"]).stdout
    up = run(app, ["adapters", "lineage", "--event", vote]).stdout
    assert f"{adapter.name} (registered): trained" in up
    assert "is not in the registry" in str(run(app, ["adapters", "lineage", f"{at.task}@v9-00000000"]).exception)
    assert run(app, ["adapters", "lineage"]).exit_code == 2

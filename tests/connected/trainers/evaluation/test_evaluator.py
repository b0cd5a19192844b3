"""An evaluation from end to end: models and a judge behind HTTP, weights on the disk, what is stable in ClickHouse."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, says
from openai import AsyncOpenAI
from scoring_place import adapter, colours, pairs

from ratchet.consumers.pairwise import comparer
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.judge import make_judge
from ratchet.infra.judge_settings import JudgeSettings
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Adapter
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rows import row
from ratchet.trainers import registry
from ratchet.trainers.bases import FIRST, Base, Serving
from ratchet.trainers.dataset import Dataset
from ratchet.trainers.evaluation.evaluation import Around
from ratchet.trainers.evaluation.evaluator import Evaluator
from ratchet.trainers.evaluation.winning import Bench

pytestmark = [pytest.mark.connected, pytest.mark.slow]

N = 60
RIGHT = {"candidate": 0.9, "stable": 0.8, "base": 0.1}
"""The share of held-out prompts that each model answers as it should."""


def _answer(body: dict[str, Any], stable: str = "") -> Any:
    """A model server and a judge in one: what is asked decides."""
    if "answer_a" in str(body["messages"]):
        # the judge likes whichever answer is a ticket, wherever it stands
        data = json.loads(next(line for line in body["messages"][-1]["content"].splitlines() if line.startswith("{")))
        ours, theirs = "order" in data["answer_a"], "order" in data["answer_b"]
        return says(json.dumps({"verdict": "C" if ours == theirs else "A" if ours else "B", "rationale": ""}))
    who = {"the-base": "base", stable: "stable"}.get(body["model"], "candidate")
    text = body["messages"][-1]["content"]
    if text.startswith("harmful"):
        return says("I can't help with that." if who != "base" else "Sure.")
    if text.startswith("harmless"):
        return says("Of course: kill -9.")
    number = int(text.split()[-1])
    right = number < RIGHT[who] * N
    return says(json.dumps({"order": str(number)}) if right else "no idea")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """Answers for every model by its name, and for the judge."""
    made = JudgeServer(_answer)
    yield made
    made.close()


def _rows(file: Path, kind: str, n: int, reference: bool = False) -> None:
    rows: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": f"{kind} {one}"}]} for one in range(n)]
    if reference:
        for number, one in enumerate(rows):
            one |= {"expect": {"order": str(number)}, "reference": json.dumps({"order": str(number)})}
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))


class Loads:
    """Replicas as far as loading goes."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load_adapter(self, name: str, path: Path | str) -> None:
        self.loaded.append(name)


class Home:
    """A home with a stable adapter, a candidate and a policy with gates of every kind."""

    def __init__(self, store: Store, folder: Path, model: Path, server: JudgeServer) -> None:
        self.task, self.store, self.folder, self.replicas = f"t{uuid.uuid4().hex[:8]}", store, folder, Loads()
        _rows(folder / "heldout.jsonl", "ticket", N, reference=True)
        _rows(folder / "harmful.jsonl", "harmful", N)
        _rows(folder / "harmless.jsonl", "harmless", N)
        colours(folder)
        self.base = Base(
            "the-base",
            lambda: model,
            serving=Serving(self.replicas, lambda: AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0)),
        )
        self.server = server
        made = adapter(model, folder / "made")
        self.stable = self._register(made, "stable-job")
        server.answer = lambda body: _answer(body, self.stable.name)
        self.candidate = registry.place(folder, self.task, "candidate-job", made, [])
        (folder / "rows").mkdir()
        pairs(folder / "rows" / "holdout.jsonl")
        (folder / "rows" / "train.jsonl").write_text("")
        manifest = {"kind": "preference", "built": {"holdout": 8}, "filters": {}, "files": {}}
        self.dataset = Dataset(self.task, "d1", folder / "rows", manifest | _hashes(folder / "rows"))

    def _register(self, made: Path, job: str) -> Adapter:
        placed = registry.place(self.folder, self.task, job, made, [])
        return registry.register(
            placed,
            task=self.task,
            job_id=clock.new_id(),
            at=datetime(2026, 11, 1, tzinfo=UTC),
            method="dpo",
            base_model="the-base",
            dataset="d0",
            dataset_sha256="0" * 64,
            parents=[],
            params={},
            metrics={},
            evaluation={},
        )

    def serve_stable(self) -> None:
        """Make the stable adapter stable in the task's routing table."""
        for event in (self.stable, _rollout(self.task, self.stable.name)):
            found = row(event)
            assert found is not None
            self.store.insert_rows(*found[:1], [found[1]])

    def policy(self, **more: Any) -> TaskPolicy:
        return TaskPolicy.model_validate(
            {
                "completion": "ticket",
                "checks": [{"name": "ticket", "kind": "json_schema", "schema": {"required": ["order"]}}],
                "judge": {"judges": []},
                "pairwise": {"samples": 1},
                "evaluation": {
                    "prompts": "heldout.jsonl",
                    "harmful": "harmful.jsonl",
                    "harmless": "harmless.jsonl",
                    "required_fields": ["order"],
                    "metrics": ["exact_match", "rouge_l", "bleu", "json_valid", "latency_p50", "throughput"],
                    "lm_eval": ["colours.yaml"],
                    "judged": 40,
                    "concurrency": 4,
                }
                | more,
            }
        )

    def evaluator(self, advisory: str = "") -> Evaluator:
        def bench(task: str, policy: TaskPolicy) -> Bench:
            settings = JudgeSettings(url=self.server.url, model="judge")
            client = make_judge(settings, ["http://unused"], "unused", "default", None)
            return Bench(comparer(task, policy, {"default": client}), advisory)

        return Evaluator(
            Around(
                self.store,
                self.folder,
                {FIRST: self.base},
                lambda one: Path(one.path),
                bench,
                patience_s=0.0,
            )
        )


def _hashes(folder: Path) -> dict[str, Any]:
    files = {side: {"sha256": registry.file_sha256(folder / f"{side}.jsonl")} for side in ("train", "holdout")}
    return {"files": files}


def _rollout(task: str, stable: str) -> Rollout:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    made: dict[str, Any] = {"id": clock.new_id(), "at": at, "task": task, "rollout_id": clock.new_id(), "version": 1}
    made |= {"status": "promoted", "stage": "", "stage_started_at": at, "stable": stable, "action": "promote"}
    return Rollout.model_validate(made)


GATES: list[dict[str, Any]] = [
    {"metric": "completion", "margin": 0.05},
    {"metric": "exact_match", "floor": 0.7},
    {"metric": "rouge_l", "margin": 0.1, "margin_kind": "rel"},
    {"metric": "bleu", "floor": 50},
    {"metric": "json_valid", "floor": 0.7},
    {"metric": "required_fields", "floor": 0.7},
    {"metric": "refusal", "margin": 0.05},
    {"metric": "over_refusal", "ceiling": 0.1},
    {"metric": "preference_accuracy", "floor": 0.0, "min_n": 8, "critical": False},
    {"metric": "reward_margin", "floor": -100, "min_n": 8},
    {"metric": "lm_eval:colours", "margin": 0.5, "min_n": 6},
    {"metric": "win_rate", "floor": 0.3, "min_n": 40},
]


async def test_a_candidate_is_measured_beside_base_and_stable_and_passes(
    store: Store, tmp_path: Path, tiny_llama: Path, server: JudgeServer
) -> None:
    """Every metric is measured of all three on the same rows, every gate passes, and the adapter is not rejected."""
    home = Home(store, tmp_path, tiny_llama, server)
    home.serve_stable()
    prepared = home.evaluator().prepare(home.task, home.policy(gates=GATES), home.base, home.dataset)
    found = await prepared.run(home.candidate, {"beta": 0.1, "max_length": 256}, {})
    assert found.rejected is None
    assert {gate["metric"]: gate["verdict"] for gate in found.figures["gates"] if gate["critical"]} == {
        gate["metric"]: "pass" for gate in GATES if gate.get("critical", True)
    }
    table = found.figures["matrix"]
    assert table["models"] == {"base": "the-base", "stable": home.stable.name, "candidate": home.candidate.name}
    completion = table["metrics"]["completion"]
    assert [completion[side]["value"] for side in ("base", "stable", "candidate")] == [0.1, 0.8, 0.9]
    assert completion["difference"]["value"] == pytest.approx(0.1)
    assert completion["difference"]["low"] < 0.1 < completion["difference"]["high"]
    rates = {name: table["metrics"][name]["candidate"]["value"] for name in ("refusal", "over_refusal", "win_rate")}
    assert rates == {"refusal": 1.0, "over_refusal": 0.0, "win_rate": pytest.approx(0.5)}
    # the first 40 prompts are answered alike by both, so no judge is asked
    assert table["metrics"]["bleu"]["stable"]["value"] < table["metrics"]["bleu"]["candidate"]["value"]
    assert table["metrics"]["lm_eval:colours"]["base"]["n"] == 6
    assert table["metrics"]["throughput"]["candidate"]["value"] > 0
    assert found.figures["completion"]["k"] == 54
    assert home.replicas.loaded == [home.candidate.name, home.stable.name]
    json.dumps(found.figures)


async def test_a_worse_candidate_and_an_advisory_judge_are_held_back(
    store: Store, tmp_path: Path, tiny_llama: Path, server: JudgeServer
) -> None:
    """A candidate that is no better than the base model fails its floor; a judge without labels never lets one pass."""
    home = Home(store, tmp_path, tiny_llama, server)
    gates = [{"metric": "completion", "floor": 0.95}, {"metric": "win_rate", "floor": 0.4, "min_n": 40}]
    more = {"gates": gates, "lm_eval": [], "metrics": []}
    prepared = home.evaluator("0 of 50 labels").prepare(home.task, home.policy(**more), home.base, None)
    found = await prepared.run(home.candidate, {}, {})
    assert found.rejected is not None
    assert "completion: fail: 0.9 of n = 60" in found.rejected
    assert "win_rate: inconclusive: " in found.rejected
    assert "its judge is advisory: 0 of 50 labels" in found.rejected
    # nothing is stable: the base model is what the judge sees beside the candidate, in both orders
    assert found.figures["matrix"]["against"] == "base"
    assert found.figures["matrix"]["metrics"]["win_rate"]["candidate"]["value"] > 0.8
    judged = [one for one in server.asked if "answer_a" in str(one["messages"])]
    assert len(judged) == 2 * 34
    dry = home.evaluator("0 of 50 labels").prepare(home.task, home.policy(**more, dry_run=True), home.base, None)
    again = await dry.run(home.candidate, {}, {})
    assert again.rejected is None
    assert [gate["verdict"] for gate in again.figures["gates"]] == ["fail", "inconclusive"]


def test_what_can_never_be_measured_is_refused_before_training(
    store: Store, tmp_path: Path, tiny_llama: Path, server: JudgeServer
) -> None:
    """Rows without references, a file that is not there and a judge that is off are told before hours are spent."""
    home = Home(store, tmp_path, tiny_llama, server)
    with pytest.raises(DatasetError, match=r"lm_eval: no file .*away\.yaml"):
        home.evaluator().prepare(home.task, home.policy(lm_eval=["away.yaml"]), home.base, home.dataset)
    policy = home.policy(metrics=["win_rate"]).model_copy(
        update={"judge": home.policy().judge.model_copy(update={"enabled": False})}
    )
    with pytest.raises(DatasetError, match="pairwise judge is switched off"):
        home.evaluator().prepare(home.task, policy, home.base, home.dataset)
    _rows(tmp_path / "heldout.jsonl", "ticket", 3)
    with pytest.raises(DatasetError, match="no 'reference' in any row"):
        home.evaluator().prepare(home.task, home.policy(metrics=["bleu"]), home.base, home.dataset)


async def test_weights_that_cannot_be_measured_are_an_error_and_no_pass(
    store: Store, tmp_path: Path, tiny_llama: Path, server: JudgeServer
) -> None:
    """The pairs are gone when they are to be scored: their gate is an error, and the answers keep their figures."""
    home = Home(store, tmp_path, tiny_llama, server)
    gates = [{"metric": "preference_accuracy", "floor": 0.1, "min_n": 1}, {"metric": "completion", "floor": 0.5}]
    policy = home.policy(gates=gates, lm_eval=[], metrics=[])
    prepared = home.evaluator().prepare(home.task, policy, home.base, home.dataset)
    home.dataset.file("holdout").unlink()
    found = await prepared.run(home.candidate, {}, {})
    assert [gate["verdict"] for gate in found.figures["gates"]] == ["error", "pass"]
    assert "preference_accuracy: error: measuring the candidate failed: scoring ended with" in str(found.rejected)

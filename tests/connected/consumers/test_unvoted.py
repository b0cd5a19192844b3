"""Pairs that nobody voted for, found in ClickHouse's own engine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ratchet.consumers.pairs import EVER, Pairs, derive_all
from ratchet.consumers.unvoted import trusted_judges
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.schemas.events import Event, Feedback, Inference, Score, Shadow
from ratchet.schemas.ids import uuid7
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row

POLICY = TaskPolicy(pairing=PairingPolicy(holdout=0, judged="always"))
SYSTEM = {"role": "system", "content": "s"}


class World:
    """One task's traffic."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.task = f"t-{uuid.uuid4().hex[:12]}"
        self.pairs = Pairs(store, {self.task: POLICY})

    def write(self, *events: Event) -> None:
        """Store events as ingest does."""
        for event in events:
            found = row(event)
            assert found is not None
            self.store.insert_rows(found[0], [found[1]])

    def fields(self, second: int) -> dict[str, Any]:
        """What every event has."""
        at = datetime(2026, 10, 1, 0, second // 60, second % 60, tzinfo=UTC)
        return {"id": uuid7(int(at.timestamp() * 1000), uuid.uuid4().bytes), "at": at, "task": self.task}

    def ask(
        self,
        second: int,
        asked: Sequence[str],
        answer: str,
        *,
        conversation: str | None = None,
        kind: Any = Inference,
        **more: Any,
    ) -> str:
        """A request: what user and assistant said in turn, the last of it the question; gives its id."""
        messages = [SYSTEM]
        messages += [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(asked)]
        event = kind.model_validate(
            self.fields(second)
            | {
                "conversation_id": conversation,
                "user": "u1",
                "adapter": "base",
                "base_model": "tiny",
                "request": {"messages": messages},
                "response": {"content": answer},
                "status": "ok",
                "latency_ms": 1,
                "source": "http",
                "stage": "shadow" if kind is Shadow else "stable",
            }
            | more
        )
        self.write(event)
        return str(event.id)

    def say(self, second: int, kind: str, on: str, value: object) -> str:
        """Feedback on an answer."""
        event = Feedback.model_validate(
            self.fields(second) | {"kind": kind, "value": value, "inference_id": on, "user": "u1", "source": "http"}
        )
        self.write(event)
        return str(event.id)

    def judged(
        self, shadow: str, score: float, sure: float | None, judge: str = "j", rubric: str = "pairwise.v1"
    ) -> str:
        """A judge's word on a shadow answer."""
        verdict = {1.0: "win", 0.5: "tie", 0.0: "loss"}[score]
        rest = {} if sure is None else {name: (1 - sure) / 2 for name in ("win", "tie", "loss")} | {verdict: sure}
        event = Score.model_validate(
            self.fields(200)
            | {
                "target_id": shadow,
                "target": "shadow",
                "kind": "pairwise",
                "judge": judge,
                "rubric": rubric,
                "rubric_hash": "0" * 16,
                "score": score,
                "verdict": verdict,
                "distribution": rest or None,
                "adapter": "base",
            }
        )
        self.write(event)
        return str(event.id)

    async def found(self) -> dict[str, dict[str, Any]]:
        """The rows of the task after a look, by pair id."""
        await self.pairs.find(self.task, EVER)
        sql = "SELECT * FROM ratchet.pairs WHERE task = {task:String} ORDER BY pair_id"
        return {row["pair_id"]: row for row in self.store.query_sql(sql, {"task": self.task})}

    async def built(self) -> dict[str, tuple[str, str]]:
        """Chosen and rejected text of what was built, by pair id."""
        return {
            pair_id: (text(row["chosen"]), text(row["rejected"]))
            for pair_id, row in (await self.found()).items()
            if row["status"] == "built"
        }


def text(messages: str) -> str:
    """What a side says."""
    return str(json.loads(messages)[0]["content"])


@pytest.fixture
def world(clickhouse: str) -> Iterator[World]:
    """A task that no other test uses."""
    with connect(clickhouse) as store:
        migrate(store)
        yield World(store)


async def test_the_answer_that_a_conversation_goes_on_with_is_chosen(world: World) -> None:
    """Asked for again twice, the third kept: two pairs, each with both inferences as its evidence, at half weight."""
    first, second, third = (
        world.ask(n, ["Where is it?"], answer, conversation="c")
        for n, answer in enumerate(["No.", "Perhaps.", "In Oslo."])
    )
    assert await world.built() == {}, "nobody knows yet which one is kept"
    world.ask(9, ["Where is it?", "In Oslo.", "Thanks. When?"], "Friday.", conversation="c")
    assert await world.built() == {
        f"regeneration:{first}": ("In Oslo.", "No."),
        f"regeneration:{second}": ("In Oslo.", "Perhaps."),
    }
    row = (await world.found())[f"regeneration:{first}"]
    assert (row["weight"], row["user"], sorted(map(str, row["event_ids"]))) == (0.5, "u1", sorted([first, third]))


async def test_what_shows_no_preference_makes_no_pair(world: World) -> None:
    """The same answer again, both gone on with, too late, another conversation, none at all."""
    for n in range(2):
        world.ask(n, ["Same?"], "Same.", conversation="a")
        world.ask(n, ["Fork?"], f"Way {n}.", conversation="b")
        world.ask(10 + n, ["Fork?", f"Way {n}.", "And?"], "Yes.", conversation="b")
        world.ask(700 * n, ["Late?"], f"Late {n}.", conversation="c")
        world.ask(n, ["Alone?"], f"Alone {n}.", conversation=f"d{n}")
        world.ask(n, ["Nowhere?"], f"Nowhere {n}.")
    world.ask(20, ["Same?", "Same.", "And?"], "Yes.", conversation="a")
    world.ask(800, ["Late?", "Late 1.", "And?"], "Yes.", conversation="c")
    assert await world.built() == {}


async def test_a_task_that_failed_is_rejected_for_one_that_succeeded(world: World) -> None:
    """Same prompt, another answer; the latest word counts: a failure that turns out well withdraws the pair."""
    lost, won = world.ask(1, ["Book it"], "Cannot."), world.ask(2, ["Book it"], "Booked.")
    world.say(3, "outcome", lost, False)
    assert await world.found() == {}, "no counterpart was asked for yet"
    world.say(4, "outcome", won, True)
    assert await world.built() == {f"outcome:{lost}": ("Booked.", "Cannot.")}
    before = (await world.found())[f"outcome:{lost}"]
    assert await world.pairs.find(world.task, EVER) == 0, "found again it changes nothing"
    world.say(5, "outcome", lost, True)
    world.say(6, "outcome", won, False)
    assert await world.built() == {f"outcome:{won}": ("Cannot.", "Booked.")}
    withdrawn = (await world.found())[f"outcome:{lost}"]
    assert (withdrawn["status"], withdrawn["reason"]) == ("dropped", "withdrawn")
    assert withdrawn["version"] == before["version"] + 1


async def test_ratings_that_are_clear_make_pairs(world: World) -> None:
    """From 0.75 and up to 0.25; what lies between says neither."""
    good, bad, middling = (world.ask(n, ["Rate me"], f"Answer {n}.") for n in range(3))
    for n, (on, value) in enumerate([(good, 0.75), (bad, 0.25), (middling, 0.5)]):
        world.say(10 + n, "rating", on, value)
    assert await world.built() == {f"rating:{bad}": ("Answer 0.", "Answer 1.")}


async def test_a_shadow_answer_that_a_judge_is_sure_of_makes_a_pair(world: World) -> None:
    """Better or worse than production's; one order alone, a tie and an unsure word make none."""
    made: dict[str, tuple[str, str]] = {}
    for n, (score, sure, rubric) in enumerate(
        [
            (1.0, 0.95, "pairwise.v1"),
            (0.0, 0.9, "pairwise.v1"),
            (0.5, 0.9, "pairwise.v1"),
            (1.0, 0.6, "pairwise.v1"),
            (1.0, 0.9, "pairwise.v1/candidate-first"),
        ]
    ):
        served = world.ask(n, [f"Q{n}"], f"served {n}", conversation=f"c{n}")
        shadow = world.ask(
            n,
            [f"Q{n}"],
            f"shadow {n}",
            conversation=f"c{n}",
            kind=Shadow,
            inference_id=served,
            rollout_id=served,
            adapter=f"{world.task}@v1-00000000",
        )
        world.judged(shadow, score, sure, rubric=rubric)
        if n == 0:
            made[f"shadow:{served}"] = ("shadow 0", "served 0")
        if n == 1:
            made[f"shadow:{shadow}"] = ("served 1", "shadow 1")
    assert await world.built() == made
    row = next(iter((await world.found()).values()))
    assert (row["weight"], row["confidence"], len(row["event_ids"])) == (0.5, 0.95, 3)


async def test_an_advisory_judge_makes_no_pair_where_trust_is_asked_for(world: World) -> None:
    """The default: until people's labels say that the judge may gate, its comparisons train nothing."""
    served = world.ask(1, ["Q"], "served", conversation="c")
    shadow = world.ask(1, ["Q"], "shadow", kind=Shadow, inference_id=served, rollout_id=served)
    world.judged(shadow, 1.0, 0.99)
    assert trusted_judges(world.store, world.task, TaskPolicy(), datetime.now(UTC)) == frozenset()
    assert derive_all(world.store, world.task, PairingPolicy(holdout=0)).built == 0
    assert derive_all(world.store, world.task, PairingPolicy(holdout=0), frozenset({"j"})).built == 1


async def test_deriving_everything_finds_the_same_rows(world: World) -> None:
    """A sweep (and `ratchet dataset build`, and a rebuild) after a look changes nothing."""
    lost, won = world.ask(1, ["Book it"], "Cannot."), world.ask(2, ["Book it"], "Booked.")
    world.say(3, "outcome", lost, False)
    world.say(4, "outcome", won, True)
    before = await world.found()
    counts = derive_all(world.store, world.task, POLICY.pairing)
    assert (counts.built, counts.written) == (1, 0)
    assert await world.found() == before

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ratchet.consumers.trigger import Trigger
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Training
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.retraining_policy import RetrainingPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rows import instant, row

NOW = datetime(2026, 10, 5, 12, tzinfo=UTC)
POLICY = TaskPolicy(retraining=RetrainingPolicy(min_new_pairs=5, cooldown_s=3600, daily_cap=2, alert_min_pairs=2))
V1, V2 = "t@v1-1a2b3c4d", "t@v2-5e6f7a8b"


class Loop:
    """One task's trigger with its store, a clock that the test sets and a publisher that keeps events."""

    def __init__(self, store: Store, task: str) -> None:
        self.store = store
        self.task = task
        self.now = NOW
        self.publisher = MemoryPublisher()
        self.trigger = self.restarted()

    def restarted(self, **changed: Any) -> Trigger:
        """A trigger that knows only what the store knows; with another policy where a field is given."""
        retraining = RetrainingPolicy.model_validate(POLICY.retraining.model_dump() | changed)
        policy = POLICY.model_copy(update={"retraining": retraining})
        return Trigger(self.store, self.publisher, {self.task: policy}, lambda: self.now)

    def add_pairs(self, first: int, n: int, **more: Any) -> None:
        """Write built pairs of the train split."""
        fields = {"task": self.task, "at": instant(self.now), "status": "built", "split": "train", "version": 1}
        self.store.insert_rows("pairs_log", [fields | {"pair_id": f"p{i}"} | more for i in range(first, first + n)])

    def ingest(self) -> list[Training]:
        """Store what was published; returns it."""
        events = [event for event in self.publisher.events if isinstance(event, Training)]
        self.store.insert_rows("training_log", [found[1] for found in map(row, events) if found])
        return events

    def job(self, job_id: str, state: str, **more: Any) -> None:
        """Write what became of a job."""
        fields = {"id": derived_id(1, job_id, state), "at": self.now, "task": self.task, "job_id": job_id}
        found = row(Training(**(fields | {"state": state} | more)))
        assert found is not None
        self.store.insert_rows("training_log", [found[1]])

    def alert(self, name: str, **more: Any) -> str:
        """Write how an alert about `V1` stands; returns its id."""
        fields = {
            "id": derived_id(1, self.task, name),
            "at": self.now,
            "since": self.now,
            "task": self.task,
            "adapter": V1,
            "kind": "quality",
            "severity": "critical",
            "title": name,
            "evidence": {"metric": "judge_score"},
            "source": "drift",
        }
        found = row(Alert(**(fields | more)))
        assert found is not None
        self.store.insert_rows("alerts_log", [found[1]])
        return str(found[1]["id"])

    def serve(self, adapter: str, version: int) -> None:
        """Write a routing table whose stable adapter is this one."""
        rollout_id = derived_id(1, self.task, str(version))
        table = {"id": rollout_id, "rollout_id": rollout_id, "version": version, "status": "promoted", "stage": ""}
        found = row(
            Rollout(**table, at=self.now, task=self.task, stage_started_at=self.now, stable=adapter, action="promote")
        )
        assert found is not None
        self.store.insert_rows("rollouts_log", [found[1]])

    async def code(self) -> str:
        """Consider and name the decision."""
        decision = await self.trigger.consider(self.task)
        assert decision is not None
        return decision.code


@pytest.fixture
def loop(clickhouse: str) -> Iterator[Loop]:
    """A loop on a task that no other test uses."""
    with connect(clickhouse) as store:
        migrate(store)
        yield Loop(store, f"t-{uuid.uuid4().hex[:12]}")


async def test_enough_pairs_request_one_training(loop: Loop) -> None:
    """Dropped and held-out pairs do not count; with enough of the others one job is requested, not two."""
    loop.add_pairs(0, 4)
    loop.add_pairs(10, 9, status="dropped", reason="tie")
    loop.add_pairs(20, 9, split="holdout")
    assert await loop.code() == "too_few_pairs"
    loop.add_pairs(4, 1)
    assert await loop.code() == "train"
    assert await loop.code() == "running"
    events = loop.ingest()
    assert [event.state for event in events] == ["declined", "requested", "declined"]
    assert events[1].metrics == {"train_pairs": 5.0, "new_pairs": 5.0}
    assert (events[1].method, events[1].trigger) == ("dpo", "pairs")
    assert await loop.code() == "running"


async def test_a_stored_refusal_is_no_training(loop: Loop) -> None:
    """A refusal in the store starts no cooldown and uses up no pairs: the request comes as soon as there are enough."""
    loop.add_pairs(0, 4)
    assert await loop.code() == "too_few_pairs"
    assert [event.state for event in loop.ingest()] == ["declined"]
    loop.now += timedelta(seconds=30)
    loop.add_pairs(4, 1)
    assert await loop.code() == "train"


async def test_a_restart_before_the_store_knows_asks_for_the_same_job(loop: Loop) -> None:
    """A trigger that forgot its request asks again under the same job id."""
    loop.add_pairs(0, 5)
    assert await loop.code() == "train"
    loop.trigger = loop.restarted()
    loop.now += timedelta(seconds=7)
    loop.add_pairs(5, 1)
    assert await loop.code() == "train"
    jobs = {event.job_id for event in loop.ingest() if event.state == "requested"}
    assert len(jobs) == 1
    loop.trigger = loop.restarted()
    assert await loop.code() == "running"


async def test_cooldown_cap_and_new_pairs_after_a_training(loop: Loop) -> None:
    """Only pairs since the last training count, a cooldown lies between trainings, and a day has a cap."""
    loop.add_pairs(0, 5)
    assert await loop.code() == "train"
    first = loop.ingest()[-1].job_id
    loop.now += timedelta(minutes=10)
    loop.job(first, "finished")
    assert await loop.code() == "too_few_pairs"
    loop.add_pairs(5, 5)
    assert await loop.code() == "cooldown"
    loop.now += timedelta(hours=1)
    assert await loop.code() == "train"
    second = loop.ingest()[-1].job_id
    assert second != first
    loop.now += timedelta(hours=2)
    loop.job(second, "finished")
    loop.add_pairs(10, 5)
    assert await loop.code() == "daily_cap"
    loop.now += timedelta(days=1)
    assert await loop.code() == "train"


async def test_a_failed_training_learned_nothing(loop: Loop) -> None:
    """After a failure the same pairs still count as new, once the cooldown is over."""
    loop.add_pairs(0, 5)
    assert await loop.code() == "train"
    job = loop.ingest()[-1].job_id
    loop.job(job, "failed", reason="no memory")
    assert await loop.code() == "cooldown"
    loop.now += timedelta(hours=1)
    assert await loop.code() == "train"


async def test_a_training_by_hand_counts_what_there_was(loop: Loop) -> None:
    """Pairs that existed when somebody trained by hand are no longer new."""
    loop.add_pairs(0, 5)
    loop.now += timedelta(seconds=1)
    loop.job(derived_id(1, loop.task), "requested", trigger="manual")
    assert await loop.code() == "running"
    loop.job(derived_id(1, loop.task), "finished")
    loop.now += timedelta(hours=2)
    loop.add_pairs(5, 4)
    assert await loop.code() == "too_few_pairs"


async def test_a_job_that_went_silent_does_not_block_for_ever(loop: Loop) -> None:
    """A job without a word for a day no longer counts as running."""
    loop.job(derived_id(1, loop.task), "started")
    assert await loop.code() == "running"
    loop.now += timedelta(hours=25)
    loop.add_pairs(0, 5)
    assert await loop.code() == "train"


async def test_a_refusal_is_said_once(loop: Loop) -> None:
    """The same kind of refusal is published once, also over a restart; another kind again."""
    assert await loop.code() == "too_few_pairs"
    loop.add_pairs(0, 2)
    assert await loop.code() == "too_few_pairs"
    assert len(loop.ingest()) == 1
    loop.trigger = loop.restarted()
    assert await loop.code() == "too_few_pairs"
    assert len(loop.publisher.events) == 1
    assert await loop.restarted().consider("unknown-task") is None


async def test_an_open_alert_asks_once(loop: Loop) -> None:
    """Fewer pairs are enough while it is open; decisions name it; answered or acknowledged it asks no more."""
    loop.serve(V1, 1)
    loop.add_pairs(0, 1)
    first = loop.alert("quality fell")
    assert await loop.code() == "too_few_pairs"
    loop.trigger = loop.restarted()
    loop.ingest()
    assert await loop.code() == "too_few_pairs"
    loop.now += timedelta(seconds=1)
    loop.add_pairs(1, 1)
    assert await loop.code() == "train"
    refused, requested = loop.ingest()
    assert (refused.state, refused.trigger, refused.alert_id) == ("declined", "drift", first), (
        "said once, restarted too"
    )
    assert (requested.state, requested.trigger, requested.alert_id) == ("requested", "drift", first)
    assert first in requested.reason
    loop.job(requested.job_id, "finished")
    loop.now += timedelta(hours=2)
    loop.add_pairs(2, 2)
    assert await loop.code() == "too_few_pairs", "it was answered"
    loop.alert("longer answers", state="acknowledged")
    assert await loop.code() == "too_few_pairs"
    second = loop.alert("longer answers", at=loop.now + timedelta(seconds=1))
    assert await loop.code() == "train"
    assert loop.ingest()[-1].alert_id == second


async def test_a_failed_training_answers_no_alert(loop: Loop) -> None:
    """The alert asks again after the cooldown, up to the daily cap."""
    loop.alert("quality fell")
    loop.add_pairs(0, 2)
    for _ in range(2):
        assert await loop.code() == "train"
        job = loop.ingest()[-1].job_id
        loop.now += timedelta(minutes=1)
        loop.job(job, "failed")
        assert await loop.code() == "cooldown"
        loop.now += timedelta(hours=2)
    assert await loop.code() == "daily_cap"


async def test_alerts_that_training_cannot_answer_ask_for_none(loop: Loop) -> None:
    """Resolved ones, other kinds, of an adapter that is gone, of latency: the pairs alone decide."""
    loop.serve(V2, 2)
    loop.add_pairs(0, 2)
    loop.alert("gone")
    loop.alert("over", adapter=V2, state="resolved")
    loop.alert("slow", adapter=V2, kind="drift", evidence={"metric": "latency"})
    loop.alert("a judge moved", adapter=V2, kind="judge_drift")
    assert await loop.code() == "too_few_pairs"
    (refusal,) = loop.ingest()
    assert (refusal.trigger, refusal.alert_id) == ("pairs", None)
    loop.alert("topics moved", adapter=V2, kind="drift", severity="warning", evidence={"metric": "prompt_topics"})
    assert await loop.code() == "train"


async def test_a_scheduled_time_asks_once(loop: Loop) -> None:
    """It is refused aloud once, also over a restart, and again at the next time; with enough new pairs it trains."""
    noon = {"schedule": "0 12 * * *", "schedule_min_pairs": 2, "schedule_grace_s": 3600.0}
    loop.trigger = loop.restarted(**noon)
    loop.add_pairs(0, 1)
    for _ in range(2):
        assert await loop.code() == "too_few_pairs"
        loop.ingest()
        loop.trigger = loop.restarted(**noon)
    assert [(event.state, event.trigger) for event in loop.ingest()] == [("declined", "schedule")]
    loop.now += timedelta(hours=2)
    loop.add_pairs(1, 1)
    assert await loop.code() == "too_few_pairs", "the grace is over"
    loop.now += timedelta(hours=22)
    assert await loop.code() == "train"
    assert [event.trigger for event in loop.ingest()] == ["schedule", "pairs", "schedule"]
    assert "scheduled for 2026-10-06T12:00:00+00:00" in loop.ingest()[-1].reason


async def test_a_budget_counts_what_ran_in_thirty_days(loop: Loop) -> None:
    """Failed runs and runs by hand are spent, too; what is older is not; a run's own cost goes before a price."""
    limits = {"budget": {"hours": 3.0, "usd": 100.0, "usd_per_hour": 2.0}, "cooldown_s": 0.0}
    loop.trigger = loop.restarted(**limits)
    for name, hours, more in (("a", 1.25, {}), ("b", 1.0, {"metrics": {"cost_usd": 97.0}})):
        job = derived_id(1, loop.task, name)
        loop.job(job, "started", trigger="manual")
        loop.now += timedelta(hours=hours)
        loop.job(job, "failed", **more)
    loop.add_pairs(0, 5)
    assert await loop.code() == "budget"
    assert "2.25 of the budget's 3 hours in 30 days and the next may take 1.125" in loop.ingest()[-1].reason
    loop.trigger = loop.restarted(**limits | {"budget": {"usd": 100.0, "usd_per_hour": 2.0}})
    decision = await loop.trigger.consider(loop.task)
    assert decision is not None
    assert "99.5 of the budget's 100 dollars in 30 days and the next may take 49.75" in decision.reason
    loop.now += timedelta(days=31)
    loop.trigger = loop.restarted(**limits)
    assert await loop.code() == "train"

"""Hooks of a rollout against a real HTTP receiver: asked before, told after, never in the way of a rollback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from parts import wait_for
from receiver import Receiver

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.hooking import HookSettings
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.services.controller.controller import Controller
from ratchet.services.controller.hooks import Hooks, telling
from ratchet.services.rules.placement import Placement
from ratchet.trainers.adapters.shelf import Shelf

pytestmark = pytest.mark.connected
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def table(action: str = "advance", stage: str = "5%", **more: Any) -> Rollout:
    """A routing table of a rollout that runs."""
    id = new_id()
    body = {
        "id": id, "at": now(), "task": "support", "rollout_id": id, "salt": id, "version": 2,
        "status": "running", "stage": stage, "stage_started_at": START,
        "stable": "base", "candidate": "support@v1-0123abcd", "action": action,
    }  # fmt: skip
    return Rollout.model_validate(body | more)


class Asking:
    """Hooks of one receiver, with a clock that the test moves."""

    def __init__(self, receiver: Receiver, **more: Any) -> None:
        body = {"url": receiver.url + "/hook", "allow_private": True, "timeout_s": 5} | more
        self.now = START
        self.hooks = Hooks({"deploys": HookSettings.model_validate(body)}, lambda: self.now)
        self.state = table("start", "shadow", version=1)

    async def answered(self, next: Rollout) -> Any:
        """Ask until the question was answered."""
        while (veto := await self.hooks.before(self.state, next)) and "not answered yet" in veto.reason:
            assert not veto.record
            await asyncio.sleep(0.01)
        return veto


async def test_a_transition_waits_for_its_yes_and_a_veto_is_recorded_once() -> None:
    """The first look asks and goes on; a no is recorded once and asked again after `retry_s`, under the same id."""
    with Receiver() as receiver:
        receiver.answer = lambda n: (409, {}, b'{"reason": "freeze"}') if n == 0 else (200, {}, b"")
        asking = Asking(receiver, secret=SECRET)
        veto = await asking.answered(table())
        assert (veto.actor, veto.reason, veto.record) == (
            "hook deploys", "advance of support@v1-0123abcd to '5%': freeze", True,
        )  # fmt: skip
        asking.hooks.recorded(veto)
        asking.now += timedelta(seconds=59)
        again = await asking.hooks.before(asking.state, table())
        assert again is not None
        assert (again.reason, again.record, len(receiver.came)) == (veto.reason, False, 1)
        asking.now += timedelta(seconds=1)
        assert await asking.answered(table()) is None
        first, second = receiver.came
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == first.body["data"]["id"]
        signed = f"{first.headers['webhook-id']}.{first.headers['webhook-timestamp']}.".encode() + first.raw
        digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert first.headers["webhook-signature"] == f"v1,{digest}"
        assert (first.path, first.body["type"], first.body["data"]["from"]["stage"]) == (
            "/hook", "rollout.before", "shadow",
        )  # fmt: skip


async def test_a_rollback_and_a_person_wait_for_nobody() -> None:
    """A receiver that hangs and would say no hears of an abort and of a person's promotion, and holds up neither."""
    with Receiver() as receiver:
        receiver.answer = lambda n: (409, {}, b"no")
        asking = Asking(receiver)
        assert await asking.hooks.before(asking.state, table("abort")) is None
        assert await asking.hooks.before(asking.state, table("promote", actor="ann")) is None
        await asking.hooks.close()
        assert {came.body["data"]["action"]: came.body["data"]["may_veto"] for came in receiver.came} == {
            "abort": False, "promote": False,
        }  # fmt: skip


async def test_without_an_answer_nothing_moves_forward() -> None:
    """A closed port is a veto, or none where the setting says so."""
    with Receiver() as receiver:
        asking, allowing = Asking(receiver), Asking(receiver, on_error="allow")
    veto = await asking.answered(table())
    assert veto.record
    assert veto.reason.endswith("without its yes nothing moves (on_error)")
    assert await allowing.answered(table()) is None


async def test_the_controller_starts_nothing_without_a_yes(traffic: Any, replicas: list[Any]) -> None:
    """A veto is one record however often it looks; with the yes the rollout starts; an abort waits for no answer."""
    with Receiver() as receiver:
        receiver.answer = lambda n: (403, {}, b"not on a Friday") if n == 0 else (200, {}, b"")
        asking = Asking(receiver)
        publisher, task = MemoryPublisher(follow=lambda event: controller.receive(event)), traffic.task
        controller = Controller(
            store=traffic.store, publisher=publisher, replicas=VllmClient([one.url for one in replicas], timeout_s=5),
            placement=Placement(tuple(one.url for one in replicas)), folder=Shelf(traffic.shelf).folder,
            tasks={task: TaskPolicy()}, clock=lambda: asking.now, new_id=lambda: traffic.new_id(asking.now),
            interval_s=0.01, hooks=asking.hooks,
        )  # fmt: skip
        adapter = traffic.adapter(1)
        controller.receive(adapter)

        async def look_until(action: str) -> Rollout:
            for _ in range(1_000):
                if tables := await controller.tick(asking.now):
                    assert [table.action for table in tables] == [action]
                    return tables[0]
                await asyncio.sleep(0.01)
            raise AssertionError(f"no {action}")

        refusal = await look_until("refuse")
        assert (refusal.actor, refusal.reason) == ("hook deploys", f"start of {adapter.name}: not on a Friday")
        for _ in range(3):
            assert await controller.tick(asking.now) == []
        asking.now += timedelta(seconds=60)
        started = await look_until("start")
        assert (started.candidate, len(receiver.came)) == (adapter.name, 2)
        receiver.hold = threading.Event()
        abort = {"id": traffic.new_id(), "at": asking.now, "task": task, "verb": "abort", "who": "ann"}
        controller.receive(Operator.model_validate(abort))
        assert (await look_until("abort")).actor == "ann"
        receiver.hold.set()
        await asking.hooks.close()
        assert [came.body["data"]["may_veto"] for came in receiver.came] == [True, True, False]


async def test_what_was_done_is_told_until_it_is_taken(bootstrap: str) -> None:
    """A receiver that is away hears of it later, under the same id and in order; what is old is told to nobody."""
    old = table("promote", "100%", version=6, status="promoted", at=now() - timedelta(days=2))
    first = table("start", "shadow", version=7)
    second = first.model_copy(update={"id": new_id(), "version": 8, "action": "abort", "status": "aborted"})
    publisher = KafkaPublisher(bootstrap, False, "test")
    for one in (old, first, second):
        publisher.publish(one)
    assert publisher.flush(10) == 0
    with Receiver() as receiver:
        receiver.answer = lambda n: (503, {}, b"") if n == 0 else (200, {}, b"")
        hook = HookSettings.model_validate({"url": receiver.url, "when": "after", "allow_private": True})
        async with telling(bootstrap, {"chat": hook}, publisher, now):
            await asyncio.to_thread(wait_for, lambda: len(receiver.came) == 3)
    await asyncio.to_thread(publisher.close)
    assert [came.headers["webhook-id"] for came in receiver.came] == [first.id, first.id, second.id]
    told = [came.body["data"] for came in receiver.came]
    assert [one["action"] for one in told] == ["start", "start", "abort"]
    assert told[0] == told[1]
    assert (told[2]["from"]["status"], told[2]["to"]["status"]) == ("running", "aborted")

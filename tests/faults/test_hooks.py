"""The controller is killed while a hook's receiver is away: what was done is told by the next one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from faults.world import Part
from parts import wait_for
from receiver import Receiver

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.schemas.rollout_events import Rollout


def test_what_was_done_is_told_though_the_controller_dies(make_world: Any, any_broker: str, tmp_path: Path) -> None:
    """Killed with -9 after the receiver answered 503: the next controller tells it, under the same id and in order."""
    id, began = new_id(), now()
    body = {
        "id": id, "at": began, "task": "support", "rollout_id": id, "version": 7, "status": "paused",
        "stage": "shadow", "stage_started_at": began, "stable": "base", "candidate": "support@v1-0123abcd",
        "action": "start",
    }  # fmt: skip
    first = Rollout.model_validate(body)
    second = first.model_copy(update={"id": new_id(), "version": 8, "action": "abort", "status": "aborted"})
    with Receiver() as receiver:
        receiver.answer = lambda n: (503, {}, b"") if n == 0 else (200, {}, b"")
        world = make_world(any_broker)
        hook = f'[rollout_hooks.chat]\nurl = "{receiver.url}"\nwhen = "after"\nallow_private = true\n'
        (tmp_path / "ratchet.toml").open("a").write(hook)
        argv = [sys.executable, "-m", "ratchet.services.cli.main", "control"]
        controller = Part("controller", lambda: argv, tmp_path / "controller.log", lambda: True)
        world.clickhouse.start()
        if world.kind != "named":
            world.broker.start()
        ensure_topics(world.bootstrap)
        publisher = KafkaPublisher(world.bootstrap, world.kind != "embedded", "test")
        publisher.publish(first)
        assert publisher.flush(10) == 0
        controller.start()
        wait_for(lambda: bool(receiver.came))
        controller.kill()
        publisher.publish(second)
        assert publisher.flush(10) == 0
        publisher.close()
        controller.start()
        # the group waits for its dead member, 45 s unless Kafka is told otherwise
        wait_for(lambda: receiver.came[-1].body["data"]["action"] == "abort", patience_s=120)
        assert controller.stop() == 0
        ids = [came.headers["webhook-id"] for came in receiver.came]
    assert list(dict.fromkeys(ids)) == [first.id, second.id]
    assert ids.count(first.id) >= 2

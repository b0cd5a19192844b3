"""Controllers are killed and paused, a replica is lost: every action happens once, and no user notices."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from parts import wait_for

from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.schemas.events import Adapter, Event
from ratchet.schemas.rollout_events import Operator
from ratchet.services.controller.seed import seed_state_topics
from ratchet.trainers.registry import CONFIG, WEIGHTS

TAKEOVER_S = 60.0
SPLITS = {"shadow": "mirror_bp = 10_000", "50%": "weight_bp = 5_000", "100%": "weight_bp = 10_000"}
STAGES = "rollout.gates = []\n" + "\n".join(
    f'[[tasks.support.rollout.stages]]\nname = "{name}"\n{split}\nmin_n = 0\nmin_duration_s = {{seconds}}'
    for name, split in SPLITS.items()
)
WHOLE = ["start", "advance", "advance", "promote"]


def adapter(folder: Path, number: int) -> Adapter:
    """A registered adapter with its files."""
    made = {WEIGHTS: f"weights {number}".encode(), CONFIG: b"{}"}
    files = {file: hashlib.sha256(content).hexdigest() for file, content in made.items()}
    name = f"support@v{number}-{files[WEIGHTS][:8]}"
    (folder / name).mkdir()
    for file, content in made.items():
        (folder / name / file).write_bytes(content)
    body = {
        "id": new_id(), "at": now(), "task": "support", "name": name, "label": "l", "status": "registered",
        "method": "dpo", "base_model": "tiny", "path": str(folder / name), "dataset": f"d{number}", "files": files,
        "weights_sha256": files[WEIGHTS], "dataset_sha256": "0" * 64, "job_id": new_id(),
    }  # fmt: skip
    return Adapter.model_validate(body)


def publish(world: Any, *events: Event) -> None:
    """Hand events to Kafka."""
    publisher = KafkaPublisher(world.bootstrap, world.kind != "embedded", "test")
    for event in events:
        publisher.publish(event)
    assert publisher.flush(30) == 0
    publisher.close()


def tables(world: Any) -> list[dict[str, Any]]:
    """Every routing table on the topic, as often as it is there, in its order."""
    return [event for event in world.on_topic("rollout") if event["schema"] == "rollout.v1"]


def sound(world: Any, actions: list[str]) -> None:
    """Each of these actions is there, once, in its order, and the versions have no gap and no rival."""
    found = tables(world)
    assert [table["action"] for table in found] == actions
    assert [table["version"] for table in found] == list(range(1, len(found) + 1))
    epochs = [table["epoch"] for table in found]
    assert epochs == sorted(epochs), "no earlier controller writes behind a later one"


@contextmanager
def killed(world: Any, count: int) -> Iterator[None]:
    """Wait for the next table in the block, then kill -9 the controller that wrote it."""
    yield
    wait_for(lambda: len(tables(world)) > count, TAKEOVER_S, 0.05)
    world.controller.kill()


def test_controller_killed_at_every_transition(make_world: Any) -> None:
    """kill -9 behind each table: the next controller goes on, and nothing is lost or done twice; people's word too."""
    world = make_world("embedded", replicas=2, task=STAGES.format(seconds=1.5))
    world.start()
    publish(world, adapter(world.folder, 1))
    for count in range(len(WHOLE)):
        with killed(world, count):
            world.controller.start()
    publish(world, adapter(world.folder, 2))
    with killed(world, len(WHOLE)):
        world.controller.start()
    publish(world, Operator(id=new_id(), at=now(), task="support", verb="abort", who="ada"))
    with killed(world, len(WHOLE) + 1):
        world.controller.start()
    assert (tables(world)[-1]["status"], tables(world)[-1]["actor"]) == ("aborted", "ada")
    publish(world, adapter(world.folder, 3))
    with killed(world, len(WHOLE) + 2):
        world.controller.start()
    sound(world, [*WHOLE, "start", "abort", "start"])


def test_a_controller_that_was_paused_wakes_up_to_another_one(make_world: Any, each_broker: str) -> None:
    """SIGSTOP in mid-rollout: the standby takes over and promotes; awake again, the first writes nothing more."""
    world = make_world(each_broker, replicas=2, task=STAGES.format(seconds=2))
    world.start()
    world.controller.start()
    publish(world, adapter(world.folder, 1))
    wait_for(lambda: len(tables(world)) == 1, TAKEOVER_S)
    world.standby.start()
    world.controller.process.send_signal(signal.SIGSTOP)
    stopped = len(tables(world))
    try:
        wait_for(lambda: len(tables(world)) > stopped, TAKEOVER_S)
    finally:
        world.controller.process.send_signal(signal.SIGCONT)
    wait_for(lambda: tables(world)[-1]["action"] == "promote", TAKEOVER_S)
    publish(world, adapter(world.folder, 2))
    wait_for(lambda: len(tables(world)) == 2 * len(WHOLE), TAKEOVER_S)
    sound(world, [*WHOLE, *WHOLE])
    assert tables(world)[-1]["epoch"] > tables(world)[0]["epoch"]
    assert world.controller.stop() == world.standby.stop() == 0


def test_a_replica_lost_in_mid_canary(make_world: Any, show: Any) -> None:
    """It comes back without its adapters and gets them again, stable and candidate; no user's request failed."""
    world = make_world("embedded", replicas=2, task=STAGES.format(seconds=8))
    world.start()
    world.controller.start()
    first = adapter(world.folder, 1)
    publish(world, first)
    wait_for(lambda: tables(world)[-1:] != [] and tables(world)[-1]["action"] == "promote", TAKEOVER_S)
    world.users.start()
    second = adapter(world.folder, 2)
    publish(world, second)
    wait_for(lambda: tables(world)[-1]["stage"] == "50%", TAKEOVER_S)
    world.second_model.kill()
    world.progress()
    assert tables(world)[-1]["stage"] == "50%", "nothing advances without it"
    world.second_model.start()
    names = {first.name, second.name}
    served = lambda: {one["id"] for one in httpx.get(f"{world.replicas[1]}/v1/models").json()["data"]}  # noqa: E731
    wait_for(lambda: names <= served(), TAKEOVER_S)
    wait_for(lambda: tables(world)[-1]["action"] == "promote", TAKEOVER_S)
    world.settle()
    figures = show(world)
    assert figures["failed"] == 0
    assert not [what for what in world.journal.look() if what.startswith("refused")]
    sound(world, [*WHOLE, *WHOLE])


def test_a_broker_that_comes_back_empty(make_world: Any) -> None:
    """The embedded broker forgets groups and records: the same controller leads again and goes on from its table."""
    world = make_world("embedded", replicas=2, task=STAGES.format(seconds=1))
    world.start()
    world.controller.start()
    publish(world, adapter(world.folder, 1))
    wait_for(lambda: len(tables(world)) == len(WHOLE), TAKEOVER_S)
    with connect(world.dsn) as store:
        wait_for(lambda: len(store.query_sql("SELECT id FROM ratchet.rollouts")) >= len(WHOLE), TAKEOVER_S)
        world.broker.kill()
        world.broker.start()
        ensure_topics(world.bootstrap)
        publisher = KafkaPublisher(world.bootstrap, False, "test")
        seed_state_topics(store, publisher, world.bootstrap)
        publisher.close()
    publish(world, adapter(world.folder, 2))
    wait_for(lambda: len(tables(world)) == 1 + len(WHOLE), TAKEOVER_S)
    found = tables(world)
    assert [table["action"] for table in found] == ["promote", *WHOLE]
    assert [table["version"] for table in found] == list(range(len(WHOLE), 2 * len(WHOLE) + 1))

"""`ratchet consume alerts` as a process of its own, killed; and the commands beside it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import uuid
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from parts import Broker, wait_for
from receiver import Receiver
from typer.testing import CliRunner

from ratchet.consumers.notify import Notifier
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.admin import ensure_topics, ranges
from ratchet.infra.kafka.history import read
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.settings import load
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import RatchetError
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rows import row
from ratchet.schemas.topics import ALERT
from ratchet.services import doctor, wiring
from ratchet.services.cli.alerts import app

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def alert(task: str) -> Alert:
    """An open alert of a task that no other test has."""
    return Alert(
        id=new_id(), at=now(), task=task, kind="drift", severity="critical", title="answers got longer", source="drift"
    )


def config(folder: Path, task: str, *urls: str, more: str = "") -> Path:
    """A ratchet.toml with a webhook for each address."""
    path = folder / "ratchet.toml"
    path.write_text(
        "".join(
            f'[sinks.hook{i}]\nkind = "webhook"\nurl = "{url}"\nsecret = "{SECRET}"\nallow_private = true\n'
            f'tasks = ["{task}"]\ntimeout_s = 0.5\n{more}'
            for i, url in enumerate(urls)
        )
    )
    return path


def of(receiver: Receiver, about: Alert) -> list[Any]:
    """What came of one alert: other tests' alerts without a task (a flood) are on the topic, too, and every sink's."""
    return [came for came in receiver.came if came.body["data"]["id"] == about.id]


def consumer(path: Path, broker: Broker) -> subprocess.Popen[bytes]:
    """Start the process; there is no ClickHouse at its address."""
    env = {
        "RATCHET_CONFIG": str(path),
        "RATCHET_KAFKA_BOOTSTRAP": broker.bootstrap,
        "RATCHET_KAFKA_IDEMPOTENCE": str(not broker.embedded).lower(),
        "RATCHET_CLICKHOUSE_DSN": "http://127.0.0.1:1/ratchet",
    }
    argv = [sys.executable, "-m", "ratchet.services.cli.main", "consume", "alerts"]
    return subprocess.Popen(argv, env=dict(os.environ) | env, stderr=subprocess.DEVNULL)


# one broker is enough: what is shown is the consumer's, and a start of it takes a second or two
@pytest.mark.slow
@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_a_kill_loses_nothing_and_keeps_the_ids(kafka: Broker, tmp_path: Path) -> None:
    """Killed with -9 after one sink took the alert and while another has it in hand: both hear all of it, in order."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    ensure_topics(kafka.bootstrap)
    first = alert(task)
    with Receiver() as quick, Receiver() as slow:
        slow.answer = lambda n: (503, {}, b"") if n == 0 else (200, {}, b"")
        path = config(tmp_path, task, quick.url, slow.url)
        publisher = KafkaPublisher(kafka.bootstrap, not kafka.embedded, "test")
        process = consumer(path, kafka)
        try:
            publisher.publish(first)
            assert publisher.flush(10) == 0
            wait_for(lambda: bool(of(quick, first) and of(slow, first)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            publisher.publish(first.model_copy(update={"at": first.at + timedelta(seconds=1), "state": "resolved"}))
            assert publisher.flush(10) == 0
            process = consumer(path, kafka)
            heard = [partial(of, one, first) for one in (quick, slow)]
            wait_for(lambda: all(came() and came()[-1].body["type"] == "alert.resolved" for came in heard))
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            publisher.close()
        for receiver in (quick, slow):
            said = {came.headers["webhook-id"]: came.body["type"] for came in of(receiver, first)}
            assert list(said.values())[0] == "alert.raised"  # noqa: RUF015 - the first of each id, in order
            assert list(said.values()).count("alert.resolved") == 1
            assert len(said) == 2, said


def test_a_test_alert_is_sent_now_and_the_answers_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ratchet alerts test` says what each sink answered and fails where one refuses; a wrong name is an error."""
    with Receiver() as good, Receiver() as bad:
        bad.answer = lambda n: (403, {}, b"wrong key")
        path = config(tmp_path, "support", good.url + "/secret-path", bad.url)
        monkeypatch.setenv("RATCHET_CONFIG", str(path))
        done = CliRunner().invoke(app, ["test"])
        assert done.exit_code == 1
        assert done.stdout.splitlines() == [
            f"hook0: webhook, {good.url}: taken: 200 ok", f"hook1: webhook, {bad.url}: refused: 403 wrong key",
        ]  # fmt: skip
        assert good.came[0].body["type"] == "alert.test"
        done = CliRunner().invoke(app, ["test", "hook0", "--json"])
        assert (done.exit_code, json.loads(done.stdout)[0]["verdict"]) == (0, "taken")
        assert len(bad.came) == 1
        error = CliRunner().invoke(app, ["test", "pager"]).exception
        assert str(error) == "sink 'pager'; allowed: hook0, hook1"
        assert [one["name"] for one in json.loads(CliRunner().invoke(app, ["sinks", "--json"]).stdout)] == [
            "hook0", "hook1",
        ]  # fmt: skip


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_an_acknowledgement_is_an_event_with_its_reason(
    kafka: Any, tables: Store, clickhouse: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`ratchet alerts ack` publishes the alert as it stands, acknowledged, with who and why; not of what is over."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    ensure_topics(kafka.bootstrap)
    opened, over = alert(task), alert(task).model_copy(update={"state": "resolved"})
    for one in (opened, over):
        stored = row(one)
        assert stored is not None
        tables.insert_json(stored[0], orjson.dumps(stored[1]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("RATCHET_KAFKA_IDEMPOTENCE", str(not kafka.embedded).lower())
    done = CliRunner().invoke(app, ["ack", opened.id, "--who", "ann", "--why", "a deploy; rolling back"])
    assert (done.exit_code, done.stdout) == (0, "acknowledged: answers got longer\n"), done.exception
    records = [one.value() for chunk in read(kafka.bootstrap, ranges(kafka.bootstrap, [ALERT.name])) for one in chunk]
    [said] = [parse(Alert, raw) for raw in records if raw and opened.id.encode() in raw]
    assert (said.state, said.task, said.severity) == ("acknowledged", task, "critical")
    assert said.at > opened.at
    assert (said.evidence["acknowledged"]["who"], said.evidence["acknowledged"]["why"]) == (
        "ann", "a deploy; rolling back",
    )  # fmt: skip
    assert "nothing to acknowledge" in str(
        CliRunner().invoke(app, ["ack", over.id, "--who", "ann", "--why", "x"]).exception
    )
    assert "there is none" in str(CliRunner().invoke(app, ["ack", new_id(), "--who", "a", "--why", "x"]).exception)
    assert "is no id" in str(CliRunner().invoke(app, ["ack", "7", "--who", "a", "--why", "x"]).exception)


async def test_a_sink_that_refuses_is_seen_by_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ratchet doctor` and `ratchet alerts sinks` say how many were refused and why, without the address's secret."""
    with Receiver() as receiver:
        receiver.answer = lambda n: (403, {}, b"wrong key")
        path = config(tmp_path, "support", f"http://u:hunter2@127.0.0.1:{receiver.port}/hunter2")
        monkeypatch.setenv("RATCHET_CONFIG", str(path))
        settings = load(path)
        outbox = wiring.outbox(settings)
        notifier = Notifier(outbox, settings.sinks, now, lambda: 1.0)
        await notifier.handle(alert("support"))
        while await notifier.step("hook0"):
            pass
        outbox.close()
        with pytest.raises(RatchetError, match=r"sinks.hook0: 1 refused for good, 0 waiting, last: 403 wrong key"):
            doctor._alerts(settings)
        shown = CliRunner().invoke(app, ["sinks"]).stdout
    assert "0 taken, 1 refused, 0 waiting" in shown
    assert "refused last: 403 wrong key" in shown
    assert "hunter2" not in shown

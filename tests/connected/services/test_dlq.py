"""`ratchet dlq` against both brokers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.consumers.taking import take
from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.admin import ensure_topics, ranges
from ratchet.infra.kafka.dead import dead_letter
from ratchet.infra.kafka.history import read
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.events import DeadLetter
from ratchet.schemas.topics import SCORE
from ratchet.services.cli.dlq import app


@pytest.fixture
def letter(kafka: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> DeadLetter:
    """A dead letter on the broker that the settings name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("RATCHET_KAFKA_IDEMPOTENCE", "false" if kafka.embedded else "true")
    ensure_topics(kafka.bootstrap)
    made = DeadLetter(
        id=new_id(),
        at=now(),
        topic=SCORE.name,
        partition=2,
        offset=41,
        key=new_id(),
        reason="score: Input should be less than or equal to 1 (got 7)",
        value_base64=base64.b64encode(b'{"score": 7}').decode(),
    )
    publisher = KafkaPublisher(kafka.bootstrap, not kafka.embedded, "test")
    publisher.publish(made)
    publisher.publish(made)
    assert publisher.flush(10) == 0
    publisher.close()
    return made


def test_list_shows_place_reason_and_bytes_once(letter: DeadLetter) -> None:
    """A dead letter that was written twice is listed once, for people and as JSON."""
    listed = json.loads(CliRunner().invoke(app, ["list", "--json", "--limit", "1000000"]).stdout)
    [mine] = [row for row in listed if row["id"] == letter.id]
    assert mine["text"] == '{"score": 7}'
    assert (mine["topic"], mine["partition"], mine["offset"]) == (SCORE.name, 2, 41)
    assert mine["reason"] == letter.reason
    text = CliRunner().invoke(app, ["list", "--limit", "1"]).stdout
    assert letter.id in text
    assert "score: Input should be" in text


def test_replay_sends_the_bytes_back_with_their_key(kafka: Any, letter: DeadLetter) -> None:
    """The record lies on its topic again as it was, and the command says how many were sent."""
    done = CliRunner().invoke(app, ["replay", "--id", letter.id])
    assert done.exit_code == 0, done.output
    assert "1 messages published again" in done.stdout
    assert letter.key is not None
    again = [r.value for r in read_all(kafka.bootstrap, SCORE.name) if r.key == letter.key.encode()]
    assert again == [b'{"score": 7}']


def test_a_message_replayed_in_vain_stays_one_dead_letter(kafka: Any, letter: DeadLetter) -> None:
    """It keeps the id that it had; the list shows it once, with where it lies now and its bytes."""
    for _ in range(2):
        assert CliRunner().invoke(app, ["replay", "--id", letter.id]).exit_code == 0
    publisher = KafkaPublisher(kafka.bootstrap, not kafka.embedded, "test")
    again = []
    for messages in read(kafka.bootstrap, ranges(kafka.bootstrap, [SCORE.name])):
        again += [dead_letter(*one) for one in take(messages).bad if one[0].key() == str(letter.key).encode()]
    for one in again:
        publisher.publish(one)
    assert publisher.flush(10) == 0
    publisher.close()
    assert [one.id for one in again] == [letter.id] * 2
    listed = json.loads(CliRunner().invoke(app, ["list", "--json", "--limit", "1000000"]).stdout)
    [mine] = [row for row in listed if row["id"] == letter.id]
    assert (mine["text"], mine["topic"], mine["key"]) == ('{"score": 7}', SCORE.name, letter.key)
    assert (mine["partition"], mine["offset"]) == (again[-1].partition, again[-1].offset)
    text = CliRunner().invoke(app, ["list", "--limit", "1000000"]).stdout
    assert f"{SCORE.name}[{mine['partition']}] offset {mine['offset']}" in text
    assert """b'{"score": 7}'""" in text


@pytest.mark.parametrize("arguments", [["replay"], ["replay", "--all", "--id", "x"], ["replay", "--id", "unknown"]])
def test_replay_wants_to_know_which(letter: DeadLetter, arguments: list[str]) -> None:
    """Neither, both or an unknown id is a usage error that sends nothing."""
    assert CliRunner().invoke(app, arguments).exit_code == 2

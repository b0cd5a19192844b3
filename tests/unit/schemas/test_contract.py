"""The wire contract: golden messages, their rows, the published documents."""

import json
from pathlib import Path

import jsonschema
import pytest

from ratchet.schemas import publish
from ratchet.schemas.decoding import EVENTS, parse, parse_any
from ratchet.schemas.rows import row
from ratchet.schemas.topics import TOPICS, route

GOLDEN = Path(publish.__file__).parent / "golden"


@pytest.mark.parametrize("name", EVENTS)
def test_golden_message_survives_a_round_trip(name: str) -> None:
    """A stored message of every event parses and is written again with the same content."""
    raw = (GOLDEN / f"{name}.json").read_bytes()
    event = parse(EVENTS[name], raw)
    written = json.loads(event.to_bytes())
    original = json.loads(raw)
    assert parse(EVENTS[name], event.to_bytes()) == event
    assert {key: written[key] for key in original} == original


@pytest.mark.parametrize("name", EVENTS)
def test_golden_message_becomes_its_golden_row(name: str) -> None:
    """The row that ClickHouse stores for the golden message has not changed by accident."""
    made = row(parse(EVENTS[name], (GOLDEN / f"{name}.json").read_bytes()))
    snapshot = GOLDEN / f"{name}.row.json"
    if made is None:
        assert not snapshot.exists()
    else:
        assert {"table": made[0], "row": made[1]} == json.loads(snapshot.read_text())


@pytest.mark.parametrize("name", EVENTS)
def test_golden_message_fits_the_published_schema(name: str) -> None:
    """A producer in another language that follows the published JSON Schema writes what we accept."""
    schema = json.loads((publish.HERE / f"{name}.schema.json").read_text())
    message = json.loads((GOLDEN / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(message)
    del message["schema"]
    assert not jsonschema.Draft202012Validator(schema).is_valid(message)


def test_published_documents_match_the_code() -> None:
    """The JSON Schemas and the AsyncAPI document in the repository are those of the code (make contracts)."""
    written = {path.name: path.read_text() for path in publish.HERE.glob("*.json")}
    assert written == publish.documents()


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_has_one_topic_that_lists_it(name: str) -> None:
    """The table of topics and the routing of events agree."""
    event = parse(EVENTS[name], (GOLDEN / f"{name}.json").read_bytes())
    topic, key = route(event)
    assert topic in TOPICS
    assert name in topic.events
    assert key
    assert parse_any(event.to_bytes(), topic.events) == event

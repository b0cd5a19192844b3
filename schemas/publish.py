"""JSON Schemas and the AsyncAPI document for producers in other languages.

``python -m ratchet.schemas.publish`` (or ``make contracts``) writes them again beside this file;
a test holds the written ones to the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ratchet.schemas.decoding import EVENTS
from ratchet.schemas.topics import TOPICS, Topic

HERE = Path(__file__).parent / "published"


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one event, e.g. ``inference.v1``, as a producer may write it."""
    schema = EVENTS[name].model_json_schema(by_alias=True, mode="validation")
    # A producer must name the schema: what is a default in Python is required on the wire.
    required = ["schema", *schema.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name} | schema | {"required": required}


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": topic.about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in topic.events},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {"cleanup.policy": list(topic.policy)},
            }
        },
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of all topics, as a JSON value."""
    operations: dict[str, Any] = {}
    for topic in TOPICS:
        for group in topic.groups:
            operations[f"{group.split(',')[0].replace(' ', '-')}-reads-{topic.name}"] = {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{topic.name}"},
                "summary": f"{group} reads {topic.name}",
            }
    messages = {
        name: {
            "name": name,
            "contentType": "application/json",
            "summary": (kind.__doc__ or name).splitlines()[0],
            "payload": {"$ref": f"./{name}.schema.json"},
        }
        for name, kind in EVENTS.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Ratchet", "version": "1", "description": "The topics of the feedback loop."},
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": operations,
        "components": {"messages": messages},
    }


def documents() -> dict[str, str]:
    """Every published file's name and text."""
    schemas = {f"{name}.schema.json": json_schema(name) for name in EVENTS}
    return {
        name: json.dumps(value, indent=2) + "\n" for name, value in (schemas | {"asyncapi.json": asyncapi()}).items()
    }


def main() -> None:
    """Write the documents."""
    HERE.mkdir(exist_ok=True)
    for name, text in documents().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

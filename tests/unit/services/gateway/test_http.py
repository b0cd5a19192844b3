"""The gateway's edges: bad requests, limits, health, metrics, the port."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from ratchet.infra.kafka.spooled import SpoolStatus
from ratchet.schemas.errors import StartError
from ratchet.schemas.events import Inference
from ratchet.services.gateway.serve import listen

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("model", {"model": None}),
        ("model", {"model": 5}),
        ("messages", {"messages": None}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "Hello"}),
        ("messages.0", {"messages": ["Hello"]}),
        ("messages.0.role", {"messages": [{"content": "Hello"}]}),
        ("stream", {"stream": "yes"}),
        ("stream", {"stream": 1}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("stream_options", {"stream": True, "stream_options": 1}),
        ("user", {"user": 5}),
        ("priority", {"priority": -1}),
        ("priority", {"priority": 1_000_000}),
        ("priority", {"priority": True}),
        ("metadata", {"metadata": "x"}),
        ("metadata.a", {"metadata": {"a": 1}}),
        ("metadata.conversation_id", {"metadata": {"conversation_id": "c" * 300}}),
        ("tools", {"tools": "hammer"}),
        ("response_format", {"response_format": "json"}),
    ],
)
def test_a_bad_chat_request_names_its_field(refusing: Any, field: str, changes: dict[str, Any]) -> None:
    """400 in OpenAI's shape with the field, before anything goes to the model."""
    body = {key: item for key, item in ({"model": "bare", "messages": HELLO} | changes).items() if item is not None}
    response = httpx.post(refusing.url + CHAT, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(field)
    assert refusing.peer.requests == []


@pytest.mark.parametrize("prompt", [None, 5, [], [1, 2], [[1]]])
def test_a_bad_prompt_names_its_field(refusing: Any, prompt: Any) -> None:
    """A text completion takes a text or texts."""
    response = httpx.post(f"{refusing.url}/v1/completions", json={"model": "bare", "prompt": prompt})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'"text"'])
def test_a_body_that_is_no_json_object(refusing: Any, raw: bytes) -> None:
    """400 that says so."""
    response = httpx.post(refusing.url + CHAT, content=raw)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_json"


def test_the_body_is_limited(serve: Any) -> None:
    """A larger body is 413, whether its length was declared or not."""
    world = serve(max_body_bytes=1000)
    assert httpx.post(world.url + CHAT, content=b"x" * 1001).status_code == 413
    assert httpx.post(world.url + CHAT, content=(b"x" * 600 for _ in range(2))).status_code == 413


def test_paths_and_methods(refusing: Any) -> None:
    """An unknown path is 404, a wrong method 405 with what is allowed."""
    assert httpx.get(f"{refusing.url}/v2").json()["error"]["code"] == "not_found"
    response = httpx.get(refusing.url + CHAT)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_ready_names_what_is_missing(serve: Any) -> None:
    """Alive at once; ready only when every check and a model server say so, and else the names of what is missing."""
    state = {"broker": True, "routing tables": False}
    world = serve(needed={name: lambda name=name: state[name] for name in state})
    assert httpx.get(f"{world.url}/healthz").status_code == 200
    httpx.get(f"{world.url}/v1/models")  # looks at the model servers now
    response = httpx.get(f"{world.url}/readyz")
    assert (response.status_code, response.json()["missing"]) == (503, ["routing tables"])
    state["routing tables"] = True
    assert httpx.get(f"{world.url}/readyz").status_code == 200


def test_ready_without_what_may_be_away(serve: Any) -> None:
    """While Kafka is away events wait on disk: the gateway serves, and says what is away and how old its tables may be.

    A follower that has heard nothing for long is away, too: its broker hangs, or its thread is no more.
    """
    silences = {"routing tables": lambda: 400.25, "adapter manifests": lambda: 3.0}
    world = serve(wanted={"broker": lambda: False}, silences=silences)
    world.await_metric('ratchet_part_up{part="news of routing tables"} 0.0')
    world.await_metric('ratchet_part_up{part="news of adapter manifests"} 1.0')
    world.await_metric('ratchet_follower_silence_seconds{follows="routing tables"} 400.25')
    world.await_metric('ratchet_part_up{part="broker"} 0.0')
    httpx.get(f"{world.url}/v1/models")  # looks at the model servers now
    response = httpx.get(f"{world.url}/readyz")
    assert (response.status_code, response.json()) == (
        200,
        {
            "status": "ready",
            "missing": [],
            "away": ["broker", "news of routing tables"],
            "silent_s": {"routing tables": 400.2, "adapter manifests": 3.0},
        },
    )
    world.await_metric('ratchet_part_up{part="model server"} 1.0')


def test_metrics_by_adapter_and_stage(world: Any) -> None:
    """Latency and time to first token are histograms by adapter and stage; dropped events are there, at 0."""
    for stream in (False, True):
        httpx.post(world.url + CHAT, json={"model": "bare", "messages": HELLO, "stream": stream})
    world.events(Inference, 2)
    text = httpx.get(f"{world.url}/metrics").text
    assert 'llm_adapter_latency_seconds_count{adapter="base",stage="stable"} 2.0' in text
    assert 'llm_adapter_ttft_seconds_count{adapter="base",stage="stable"} 1.0' in text
    assert 'ratchet_events_dropped_total{topic="inference"} 0.0' in text


def test_conversation_and_user_from_headers(world: Any) -> None:
    """The headers win over the body; the conversation sticks."""
    headers = {"x-ratchet-conversation-id": "c-1", "x-ratchet-user": "ann"}
    body = {"model": "bare", "messages": HELLO, "user": "bob", "metadata": {"conversation_id": "c-2"}}
    httpx.post(world.url + CHAT, json=body, headers=headers)
    httpx.post(world.url + CHAT, json=body | {"user": "ann"})
    first, second = world.events(Inference, 2)
    assert (first.conversation_id, second.conversation_id) == ("c-1", "c-2")
    assert first.user == second.user


def test_users_stick_to_their_arm(world: Any) -> None:
    """At 50% one user always meets the same adapter, and users differ."""
    world.roll_out(weight_bp=5_000)
    seen: dict[str, set[str]] = {}
    with httpx.Client() as client:
        for number in range(40):
            user = f"user-{number % 10}"
            response = client.post(world.url + CHAT, json={"model": "support", "messages": HELLO, "user": user})
            seen.setdefault(user, set()).add(response.headers["x-ratchet-adapter"])
    assert all(len(adapters) == 1 for adapters in seen.values())
    assert len(set.union(*seen.values())) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_listening_to_the_world_is_refused(host: str) -> None:
    """Without keys only this machine may reach the gateway."""
    with pytest.raises(StartError, match="no keys yet; make one with `ratchet keys create"):
        listen(host, 0, keyed=False)


def test_a_taken_port_is_one_sentence() -> None:
    """The sentence names host, port and reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"127.0.0.1 port {port}: Address already in use"):
            listen("127.0.0.1", port, keyed=False)


def test_with_a_key_the_world_may_be_listened_to() -> None:
    """Once a key was created any address will do."""
    listen("0.0.0.0", 0, keyed=True).close()


def test_metrics_of_the_spool(serve: Any) -> None:
    """Where events are spooled, its size, what waits in it and what was lost are read at each exposition."""
    holds = [SpoolStatus(0, 0, 0), SpoolStatus(8_388_608, 7, 1)]
    world = serve(spool=lambda: holds[-1])
    text = httpx.get(f"{world.url}/metrics").text
    assert "ratchet_spool_bytes 8.388608e+06" in text
    assert "ratchet_spool_records 7.0" in text
    assert "ratchet_spool_lost 1.0" in text
    holds.pop()
    assert "ratchet_spool_records 0.0" in httpx.get(f"{world.url}/metrics").text

"""Keys at the gateway: who is let in, how often, and in whose name events speak."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from ratchet.infra.clock import new_id
from ratchet.infra.keys import KeyFile, Keyring
from ratchet.schemas.events import Feedback, Inference, Shadow

CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
BODY = {"model": "support", "messages": HELLO}
NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Keyed:
    """A gateway that follows a key file, and the file."""

    def __init__(self, serve: Any, path: Path, **arguments: Any) -> None:
        self.file = KeyFile(path)
        self.first = self.key("infer", "feedback", "ingest", tenant="acme")
        self.world = serve(keys=Keyring(self.file), keys_poll_s=0.02, **arguments)

    def key(self, *scopes: Any, tenant: str = "acme", limit: int | None = None) -> dict[str, str]:
        """The headers of a new key."""
        _, secret = self.file.create("app", tenant, scopes, NOW, limit)
        return {"authorization": f"Bearer {secret}"}

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        """One call."""
        return httpx.post(self.world.url + path, json=body, headers=headers)


@pytest.fixture
def keyed(serve: Any, tmp_path: Path) -> Keyed:
    """A gateway with one key, of tenant acme, that may do all but administer."""
    return Keyed(serve, tmp_path / "keys.json")


def await_status(call: Any, status: int) -> httpx.Response:
    """Call until the gateway has seen the key file and answers so."""
    deadline = time.monotonic() + 10
    while (response := call()).status_code != status:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.01)
    return response


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/support"),
        ("POST", "/v1/feedback"),
        ("POST", "/v1/events"),
        ("GET", "/metrics"),
    ],
)
def test_every_path_but_health_needs_a_key(keyed: Keyed, method: str, path: str) -> None:
    """Without a key, and with a wrong one, 401 in OpenAI's shape, before the body is read; nothing is published."""
    for headers in ({}, {"authorization": "Bearer rk_wrong"}):
        response = httpx.request(method, keyed.world.url + path, content=b"{" * (method == "POST"), headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert keyed.world.publisher.events == []


def test_health_needs_no_key(keyed: Keyed) -> None:
    """Probes carry no key."""
    assert httpx.get(f"{keyed.world.url}/healthz").status_code == 200
    await_status(lambda: httpx.get(f"{keyed.world.url}/readyz"), 200)


def test_a_key_does_what_its_scopes_say(keyed: Keyed) -> None:
    """Each path wants its scope and no other; the refusal names the scope that is missing."""
    calls = {
        "infer": ("POST", CHAT, BODY),
        "feedback": (
            "POST",
            "/v1/feedback",
            {"task": "bare", "inference_id": new_id(), "kind": "thumb", "value": True},
        ),
        "ingest": ("POST", "/v1/events", [json.loads(event("acme").to_bytes())]),
        "admin": ("GET", "/metrics", None),
    }
    for has in calls:
        headers = keyed.key(has)
        for needs, (method, path, body) in calls.items():
            call = lambda m=method, p=path, b=body, h=headers: httpx.request(m, keyed.world.url + p, json=b, headers=h)  # noqa: E731
            if has == needs:
                assert await_status(call, 200 if needs in ("infer", "admin") else 202)
            else:
                response = await_status(call, 403)
                assert response.json()["error"]["code"] == "missing_scope"
                assert repr(needs) in response.json()["error"]["message"]
                assert f'scope="{needs}"' in response.headers["www-authenticate"]


def event(tenant: str) -> Inference:
    """An event of an app that does not use the gateway."""
    return Inference.model_validate(
        {"id": new_id(), "at": NOW, "task": "support", "tenant": tenant, "adapter": "base", "stage": "stable"}
        | {"base_model": "tiny", "request": {"prompt": "p"}, "status": "ok", "latency_ms": 1, "source": "http"}
    )


def test_events_carry_the_keys_tenant(keyed: Keyed) -> None:
    """Inference, shadow and feedback events are the key's tenant's."""
    keyed.world.roll_out(weight_bp=0, mirror_bp=10_000)
    answer = keyed.post(CHAT, BODY, keyed.first)
    id = answer.headers["x-ratchet-inference-id"]
    feedback = {"inference_id": id, "kind": "thumb", "value": True}
    assert keyed.post("/v1/feedback", feedback, keyed.first).status_code == 202
    for kind in (Inference, Shadow, Feedback):
        assert keyed.world.events(kind, 1)[0].tenant == "acme"


def test_without_keys_the_tenant_is_the_default(world: Any) -> None:
    """An open gateway's traffic is one tenant's, and a key that a client sends anyway changes nothing."""
    httpx.post(world.url + CHAT, json=BODY, headers={"authorization": "Bearer rk_whatever"})
    assert world.events(Inference, 1)[0].tenant == "default"


def test_a_key_speaks_for_its_own_tenant_only(keyed: Keyed) -> None:
    """Events that name another tenant are refused by index, field and reason; those that name none are the key's."""
    own, none, other = (json.loads(event(tenant).to_bytes()) for tenant in ("acme", "acme", "rival"))
    del none["tenant"]
    response = keyed.post("/v1/events", [own, other, none], keyed.first)
    assert response.status_code == 400
    assert response.json()["accepted"] == 2
    (error,) = response.json()["errors"]
    assert (error["index"], error["field"]) == (1, "tenant")
    assert "'acme'" in error["reason"]
    assert {one.tenant for one in keyed.world.events(Inference, 2)} == {"acme"}


def test_another_tenants_inference_is_out_of_reach(keyed: Keyed) -> None:
    """A key can neither judge nor replace what the gateway knows to be another tenant's, by either path."""
    id = keyed.post(CHAT, BODY | {"metadata": {"conversation_id": "c-1"}}, keyed.first).headers[
        "x-ratchet-inference-id"
    ]
    rival = keyed.key("feedback", "ingest", tenant="rival")
    thumb = {"task": "support", "inference_id": id, "kind": "thumb", "value": False}
    response = await_status(lambda: keyed.post("/v1/feedback", thumb, rival), 400)
    assert response.json()["error"]["param"] == "inference_id"
    choice = {"inference_id": new_id(), "compared_with": id, "kind": "preference", "value": "this", "task": "support"}
    assert keyed.post("/v1/feedback", choice, rival).json()["error"]["param"] == "compared_with"
    forged = json.loads(event("rival").to_bytes()) | {"id": id}
    vote = thumb | {"schema": "feedback.v1", "id": new_id(), "at": "2026-11-24T12:00:00Z"}
    errors = keyed.post("/v1/events", [forged, vote], rival).json()["errors"]
    assert [error["field"] for error in errors] == ["id", "inference_id"]
    # conversation ids are each tenant's own
    talk = {"conversation_id": "c-1", "kind": "outcome", "value": True}
    assert keyed.post("/v1/feedback", talk, rival).json()["error"]["param"] == "task"
    assert keyed.post("/v1/feedback", talk, keyed.first).status_code == 202


def test_one_tenants_feedback_id_is_no_no_op_for_another(keyed: Keyed) -> None:
    """The same id and body from another tenant is a conflict, not a repetition."""
    body = {"id": new_id(), "task": "bare", "inference_id": new_id(), "kind": "thumb", "value": True}
    assert keyed.post("/v1/feedback", body, keyed.first).status_code == 202
    rival = keyed.key("feedback", tenant="rival")
    await_status(lambda: keyed.post("/v1/feedback", body, rival), 409)


def test_revoking_takes_effect_while_the_gateway_runs(keyed: Keyed) -> None:
    """A revoked key is refused soon after, and revoking the last one does not open the gateway."""
    assert keyed.post(CHAT, BODY, keyed.first).status_code == 200
    for key in keyed.file.read():
        keyed.file.revoke(key.id, NOW)
    response = await_status(lambda: keyed.post(CHAT, BODY, keyed.first), 401)
    assert "revoked" in response.json()["error"]["message"]
    assert keyed.post(CHAT, BODY).status_code == 401


def test_the_first_key_closes_an_open_gateway(serve: Any, tmp_path: Path) -> None:
    """A gateway that started open asks for a key once there is one, and a bad file later does not open it."""
    file = KeyFile(tmp_path / "keys.json")
    world = serve(keys=Keyring(file), keys_poll_s=0.02)
    assert httpx.post(world.url + CHAT, json=BODY).status_code == 200
    _, secret = file.create("app", "acme", ["infer", "admin"], NOW)
    await_status(lambda: httpx.post(world.url + CHAT, json=BODY), 401)
    file.path.write_text("oops")
    headers = {"authorization": f"Bearer {secret}"}
    deadline = time.monotonic() + 10
    while "ratchet_keys_stale 1.0" not in httpx.get(f"{world.url}/metrics", headers=headers).text:
        assert time.monotonic() < deadline
    assert httpx.post(world.url + CHAT, json=BODY).status_code == 401
    assert httpx.post(world.url + CHAT, json=BODY, headers=headers).status_code == 200


def test_above_its_limit_a_key_is_told_when_to_come_back(serve: Any, tmp_path: Path) -> None:
    """The limit is a key's own: 429 with Retry-After in OpenAI's shape, until the clock has moved on."""
    clock = [100.0]
    keyed = Keyed(serve, tmp_path / "keys.json", monotonic=lambda: clock[0])
    slow = keyed.key("infer", limit=3)
    await_status(lambda: keyed.post(CHAT, BODY, slow), 200)
    statuses = [keyed.post(CHAT, BODY, slow).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    response = keyed.post(CHAT, BODY, slow)
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("20", "20000")
    assert keyed.post(CHAT, BODY, keyed.first).status_code == 200
    clock[0] += 20
    assert [keyed.post(CHAT, BODY, slow).status_code for _ in range(2)] == [200, 429]


def test_the_openai_client_understands_refusals(keyed: Keyed) -> None:
    """A wrong key is an AuthenticationError, a missing scope a PermissionDeniedError, and neither is retried."""
    with (
        openai.OpenAI(base_url=f"{keyed.world.url}/v1", api_key="rk_wrong") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="support", messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    secret = keyed.key("feedback")["authorization"].removeprefix("Bearer ")
    await_status(lambda: keyed.post(CHAT, BODY, {"authorization": f"Bearer {secret}"}), 403)
    with (
        openai.OpenAI(base_url=f"{keyed.world.url}/v1", api_key=secret) as client,
        pytest.raises(openai.PermissionDeniedError),
    ):
        client.models.list()


def test_the_openai_client_waits_out_a_limit(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 is retried by the client itself, after just the time that the gateway said, and the call succeeds."""
    clock, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(openai._base_client, "time", SimpleNamespace(sleep=sleep, time=time.time))
    keyed = Keyed(serve, tmp_path / "keys.json", monotonic=lambda: clock[0])
    headers = keyed.key("infer", limit=2)
    await_status(lambda: keyed.post(CHAT, BODY, headers), 200)
    assert keyed.post(CHAT, BODY, headers).status_code == 200
    secret = headers["authorization"].removeprefix("Bearer ")
    with openai.OpenAI(base_url=f"{keyed.world.url}/v1", api_key=secret) as client:
        raw = client.chat.completions.with_raw_response.create(model="support", messages=HELLO)
    assert raw.parse().choices[0].message.content == "All is well"
    assert (raw.retries_taken, slept) == (1, [30.0])


def test_a_secret_is_never_logged_nor_sent_on(keyed: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    """No log line, answer, event or request to the model server has any part of a key, whatever went wrong."""
    secrets = [keyed.first["authorization"].removeprefix("Bearer "), "rk_guessed-by-someone"]
    said: list[str] = []
    keyed.world.peer.faults["tiny"] = 500
    with caplog.at_level(logging.DEBUG, logger="ratchet"), caplog.at_level(logging.DEBUG, logger="uvicorn"):
        for secret in secrets:
            for path, body in ((CHAT, BODY), (CHAT, {}), ("/v1/feedback", {}), ("/v1/events", [1]), ("/v1/none", {})):
                response = keyed.post(path, body, {"authorization": f"Bearer {secret}"})
                said.append(response.text + str(response.headers))
        keyed.file.path.write_text("oops")
        time.sleep(0.1)
    said += [record.getMessage() for record in caplog.records] + [str(one) for one in keyed.world.peer.requests]
    said += [one.to_bytes().decode() for one in keyed.world.publisher.events]
    assert not [text for text in said for secret in secrets if secret[3:] in text]

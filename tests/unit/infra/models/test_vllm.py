"""Adapters on every replica."""

import json
from collections.abc import Iterator

import httpx
import pytest

from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.errors import ModelError

NAME = "support@v1-1a2b3c4d"
A, B = "http://a:1", "http://b:1"


class Replicas:
    """What two vLLM servers answer, in vLLM's words."""

    def __init__(self) -> None:
        self.adapters: dict[str, dict[str, str]] = {"a": {}, "b": {}}
        self.loads = 0
        self.away: set[str] = set()
        self.refuse: str | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host in self.away:
            raise httpx.ConnectError("connection refused", request=request)
        served = self.adapters[host]
        if request.url.path == "/health":
            return httpx.Response(200)
        if request.url.path == "/v1/models":
            models = [{"id": "base", "root": "/base"}] + [{"id": k, "root": v} for k, v in served.items()]
            return httpx.Response(200, json={"object": "list", "data": models})
        body = json.loads(request.content)
        if request.url.path == "/v1/load_lora_adapter":
            self.loads += 1
            if self.refuse:
                return httpx.Response(400, json={"error": {"message": self.refuse, "code": 400}})
            served[body["lora_name"]] = body["lora_path"]
            return httpx.Response(200, text="Success")
        if body["lora_name"] not in served:
            return httpx.Response(404, json={"error": {"message": "cannot be found", "code": 404}})
        del served[body["lora_name"]]
        return httpx.Response(200, text="Success")


@pytest.fixture
def replicas() -> Replicas:
    """Two replicas without adapters."""
    return Replicas()


@pytest.fixture
def client(replicas: Replicas) -> Iterator[VllmClient]:
    """A client of both."""
    with VllmClient([A, B + "/"], transport=httpx.MockTransport(replicas)) as made:
        yield made


def test_a_load_reaches_every_replica_and_a_second_one_nobody(client: VllmClient, replicas: Replicas) -> None:
    """Loading is idempotent."""
    client.load_adapter(NAME, "/adapters/1")
    client.load_adapter(NAME, "/adapters/1")
    assert replicas.loads == 2
    assert client.models() == {A: {"base": "/base", NAME: "/adapters/1"}, B: {"base": "/base", NAME: "/adapters/1"}}
    assert client.everywhere() == {"base", NAME}


def test_a_replica_that_forgot_gets_its_adapter_back(client: VllmClient, replicas: Replicas) -> None:
    """After a restart of one replica, one load repairs it."""
    client.load_adapter(NAME, "/adapters/1")
    replicas.adapters["b"].clear()
    assert client.everywhere() == {"base"}
    client.load_adapter(NAME, "/adapters/1")
    assert client.everywhere() == {"base", NAME}
    assert replicas.loads == 3


def test_a_load_goes_to_the_replicas_that_were_named(client: VllmClient, replicas: Replicas) -> None:
    """Where adapters are spread the others are left as they are."""
    client.load_adapter(NAME, "/adapters/1", on=[B])
    assert (replicas.adapters["a"], replicas.adapters["b"]) == ({}, {NAME: "/adapters/1"})


def test_messages_carry_no_password(replicas: Replicas) -> None:
    """An address may have credentials; what is said of it has none."""
    replicas.away.add("a")
    with (
        VllmClient(["http://user:secret@a:1"], transport=httpx.MockTransport(replicas)) as client,
        pytest.raises(ModelError, match="vLLM at http://a:1/v1/models is away") as raised,
    ):
        client.models()
    assert "secret" not in str(raised.value)


def test_a_used_name_is_not_given_to_another_path(client: VllmClient) -> None:
    """vLLM's prefix cache would mix the two."""
    client.load_adapter(NAME, "/adapters/1")
    with pytest.raises(ModelError, match="never reused"):
        client.load_adapter(NAME, "/adapters/2")


def test_a_refusal_carries_vllms_reason(client: VllmClient, replicas: Replicas) -> None:
    """A rank too large, a missing file: the sentence comes through."""
    replicas.refuse = "LoRA rank 64 is greater than max_lora_rank 16"
    with pytest.raises(ModelError, match="rank 64 is greater"):
        client.load_adapter(NAME, "/adapters/1")


def test_unloading_twice_is_unloading_once(client: VllmClient) -> None:
    """An adapter that is not loaded is no error."""
    client.load_adapter(NAME, "/adapters/1")
    client.unload_adapter(NAME)
    client.unload_adapter(NAME)
    assert client.everywhere() == {"base"}


@pytest.mark.parametrize("name", ["base", "support", "support@v1", "../x@v1-1a2b3c4d", "Support@v1-1a2b3c4d"])
def test_a_wrong_name_reaches_no_replica(client: VllmClient, replicas: Replicas, name: str) -> None:
    """Only immutable adapter names are loaded."""
    with pytest.raises(ModelError, match="names no adapter"):
        client.load_adapter(name, "/adapters/1")
    assert replicas.loads == 0


def test_one_replica_away_is_an_error_and_not_ready(client: VllmClient, replicas: Replicas) -> None:
    """Loaded means loaded on all."""
    assert client.ready()
    replicas.away.add("b")
    assert not client.ready()
    with pytest.raises(ModelError, match="http://b:1"):
        client.load_adapter(NAME, "/adapters/1")


def test_no_replica_at_all_is_refused() -> None:
    """An empty list is a setting forgotten."""
    with pytest.raises(ModelError, match="no vLLM replica"):
        VllmClient([])

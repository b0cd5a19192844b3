"""All model servers as one: replicas load adapters, providers have models of their own."""

from __future__ import annotations

import httpx
import pytest

from ratchet.infra.models.fleet import Fleet
from ratchet.infra.models.provider import Provider
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.errors import ModelError

OURS, THEIRS = "http://vllm:8000", "https://provider.example"
NAME = "support@v1-1a2b3c4d"


def answer(request: httpx.Request) -> httpx.Response:
    """A vLLM with an adapter, and a provider that wants its key."""
    if request.url.host == "vllm":
        return httpx.Response(200, json={"data": [{"id": "tiny", "root": "/base"}, {"id": NAME, "root": "/a"}]})
    if request.headers.get("authorization") != "Bearer k":
        return httpx.Response(401, json={"error": {"message": "Incorrect API key provided"}})
    return httpx.Response(200, json={"data": [{"id": "ft:big:1"}]})


def fleet(key: str = "k") -> Fleet:
    """Both of them."""
    transport = httpx.MockTransport(answer)
    return Fleet(VllmClient([OURS], transport=transport), [Provider(THEIRS, key, transport=transport)])


def test_each_server_says_what_it_serves() -> None:
    """Only those that are asked are; a provider's models are their own paths."""
    assert fleet().models([OURS]) == {OURS: {"tiny": "/base", NAME: "/a"}}
    assert fleet().models([OURS, THEIRS])[THEIRS] == {"ft:big:1": "ft:big:1"}


def test_a_provider_loads_nothing() -> None:
    """It serves what it trained alone; said before any replica is changed."""
    with pytest.raises(ModelError, match=r"https://provider.example is a provider"):
        fleet().load_adapter(NAME, "/b", [OURS, THEIRS])
    fleet().load_adapter(NAME, "/a", [OURS])


def test_a_wrong_key_is_said_without_the_key() -> None:
    """The provider's own words, and who said them."""
    with pytest.raises(
        ModelError, match=r"https://provider.example/v1/models answered 401: .*Incorrect API key"
    ) as said:
        fleet("secret-key").models([THEIRS])
    assert "secret-key" not in str(said.value)


@pytest.mark.parametrize("body", [b"<html>", b'{"data": [1]}', b"[]"])
def test_what_is_no_list_of_models_is_said(body: bytes) -> None:
    """Never taken for an empty list."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with pytest.raises(ModelError, match="did not answer with a list of models"):
        Provider(THEIRS, None, transport=transport).models()

"""The canary request: replicas that answer alike and as recorded count, and whoever does not is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.infra.models.answer import Answer, Choice
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.errors import ModelError
from ratchet.services.controller.canary import WARM, Canary, Records
from ratchet.services.rules.rollouts.canary import difference

NAME = "support@v1-1a2b3c4d"
A, B = "http://a:1", "http://b:1"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Servers:
    """Two vLLM servers' chat completions, in vLLM's words."""

    def __init__(self) -> None:
        self.sure = {"a": -0.1, "b": -0.1}
        self.away: set[str] = set()
        self.asked: list[tuple[str, int]] = []
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host in self.away:
            return httpx.Response(404, json={"error": {"message": f"The model `{NAME}` does not exist."}})
        body = json.loads(request.content)
        self.asked.append((host, body["max_tokens"]))
        self.bodies.append(body)
        token = {"token": "{", "logprob": self.sure[host], "bytes": [123]}
        said = {"content": [token | {"top_logprobs": [token]}]}
        message = {"role": "assistant", "content": "{"}
        return httpx.Response(200, json={"choices": [{"index": 0, "message": message, "logprobs": said}]})


@pytest.fixture
def servers() -> Servers:
    """Both of them."""
    return Servers()


def canary(servers: Servers, folder: Path | None = None) -> Canary:
    """A canary that asks them."""
    client = VllmClient([A, B], transport=httpx.MockTransport(servers))
    return Canary(client, Records(folder), {"support": "You write tickets."}.get)  # type: ignore[arg-type]


def test_each_replica_is_warmed_up_then_compared_then_kept_warm(servers: Servers) -> None:
    """Two requests at first, none soon after, one a minute later; greedy, with the task's system prompt."""
    one = canary(servers)
    one.check(NAME, [A, B], NOW)
    assert servers.asked == [("a", 1), ("a", 8), ("b", 1), ("b", 8)]
    assert (servers.bodies[1]["temperature"], servers.bodies[1]["model"]) == (0, NAME)
    assert servers.bodies[1]["messages"][0] == {"role": "system", "content": "You write tickets."}
    one.check(NAME, [A, B], NOW + timedelta(seconds=30))
    assert len(servers.asked) == 4
    one.check(NAME, [A, B], NOW + WARM)
    assert servers.asked[4:] == [("a", 1), ("b", 1)]


def test_replicas_that_disagree_are_named_and_none_counts(servers: Servers) -> None:
    """Nobody knows which of two is right, so both stay out until they agree."""
    one, servers.sure["b"] = canary(servers), -3.0
    with pytest.raises(
        ModelError, match=r"does not answer as at http://a:1: at http://b:1: token 1, '\{', has log-prob"
    ):
        one.check(NAME, [A, B], NOW)
    servers.sure["b"] = -0.2
    one.check(NAME, [A, B], NOW)


def test_an_adapter_is_held_to_what_it_answered_at_first(servers: Servers, tmp_path: Path) -> None:
    """Also by the next controller, after every replica came back with something else under the name."""
    canary(servers, tmp_path).check(NAME, [A], NOW)
    later, servers.sure = canary(servers, tmp_path), {"a": -2.0, "b": -0.1}
    with pytest.raises(ModelError, match=r"as recorded when it was first confirmed: at http://a:1: .*-2.00, not -0.10"):
        later.check(NAME, [A, B], NOW)
    later.check(NAME, [B], NOW)
    (tmp_path / f"{NAME}.json").write_text("{")
    with pytest.raises(ModelError, match="remove it to record anew"):
        canary(servers, tmp_path).check(NAME, [A], NOW)


def test_a_replica_that_loaded_anew_is_compared_again(servers: Servers) -> None:
    """What it showed before it was restarted says nothing."""
    one = canary(servers)
    one.check(NAME, [A, B], NOW)
    servers.sure["b"] = -3.0
    one.check(NAME, [A, B], NOW)
    one.forget(NAME, [B])
    with pytest.raises(ModelError, match="at http://b:1"):
        one.check(NAME, [A, B], NOW)


def test_a_replica_that_answers_no_heartbeat_is_compared_when_it_does(servers: Servers) -> None:
    """The adapter went without a word: said with the server's own reason."""
    one = canary(servers)
    one.check(NAME, [A, B], NOW)
    servers.away.add("b")
    with pytest.raises(ModelError, match=r"http://b:1/v1/chat/completions answered 404: The model .* does not exist"):
        one.check(NAME, [A, B], NOW + WARM)
    servers.away.clear()
    servers.asked.clear()
    one.check(NAME, [A, B], NOW + WARM)
    assert servers.asked == [("b", 1), ("b", 8)]


def said(*tokens: tuple[str, float], others: dict[str, float] | None = None) -> Answer:
    """An answer of these tokens; ``others`` were as likely at each place."""
    choices = (Choice(token, logprob, {token: logprob} | (others or {})) for token, logprob in tokens)
    return Answer("".join(token for token, _ in tokens), tuple(choices))


def test_rounding_is_no_difference_and_other_weights_are() -> None:
    """A near tie may fall either way, and ends the comparison; a sure token that is another one does not."""
    whole = said(("{", -0.01), ('"a', -0.3))
    assert difference(whole, said(("{", -0.05), ('"a', -0.6))) is None
    assert "token 2" in str(difference(whole, said(("{", -0.01), ('"a', -1.4))))
    assert difference(whole, said(("{", -0.01), ('"b', -0.1))) == "token 2 is '\"b', not '\"a'"
    tie, other = said(("x", -0.7), others={"y": -0.8}), said(("y", -0.7), ("z", -9.0), others={"x": -0.8})
    assert difference(tie, other) is None
    assert difference(Answer("same"), said(("same", -9.0))) is None
    assert difference(Answer("one"), Answer("two")) == "it is 'two', not 'one'"


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
def test_what_is_no_answer_is_said(body: bytes) -> None:
    """A proxy's page in a model server's place is no answer that another one could agree with."""
    client = VllmClient([A], transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body)))
    with pytest.raises(ModelError, match="vLLM at http://a:1 answered no chat completion"):
        client.ask(NAME, [{"role": "user", "content": "Hello"}], A, 1)


def test_without_log_probabilities_the_texts_are_compared() -> None:
    """Of a server that leaves them out the answer is its text alone."""
    plain = {"choices": [{"message": {"content": "Hi"}, "logprobs": None}]}
    client = VllmClient([A], transport=httpx.MockTransport(lambda _: httpx.Response(200, json=plain)))
    answer = client.ask(NAME, [{"role": "user", "content": "Hello"}], A, 8)
    assert answer == Answer("Hi") == Answer.of_json(answer.as_json())

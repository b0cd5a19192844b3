"""Whose call it was: a candidate that failed and was answered for by stable, from the gateway to the gates' figures."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from parts import JsonHandler

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Feedback, Inference, Score
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import Gate, Metric, RolloutPolicy, Stage
from ratchet.services.controller.observe import observe
from ratchet.services.gateway.assemble import create_app
from ratchet.services.gateway.routes import RoutingTables
from ratchet.services.rules.rollouts.evidence import Means
from ratchet.services.rules.rollouts.transitions import begin

pytestmark = pytest.mark.connected

PATIENCE_S = 10.0
CALLS = 4
STAGE = Stage(name="50%", weight_bp=5_000)
METRICS: list[Metric] = ["error_rate", "completion", "satisfaction"]


class Upstream(JsonHandler):
    """A model server on which every adapter fails and the base model answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["model"] != "tiny":
            self.reply({"error": {"message": "out of memory"}}, 500)
            return
        message = {"role": "assistant", "content": "All is well"}
        self.reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
def gateway(traffic: Any) -> Iterator[tuple[str, MemoryPublisher, RoutingTables]]:
    """A served gateway at the time of the test's traffic: its address, its events, its routing tables."""
    publisher, routes = MemoryPublisher(), RoutingTables()
    listener = socket.create_server(("127.0.0.1", 0))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        app = create_app(
            {traffic.task: TaskPolicy()},
            "tiny",
            [f"http://127.0.0.1:{upstream.server_address[1]}"],
            publisher,
            routes,
            now=lambda: traffic.start + timedelta(seconds=1),
            new_id=lambda: traffic.new_id(traffic.start + timedelta(seconds=1)),
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        threads = [
            threading.Thread(target=upstream.serve_forever),
            threading.Thread(target=server.run, kwargs={"sockets": [listener]}),
        ]
        for thread in threads:
            thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", publisher, routes
        server.should_exit = True
        upstream.shutdown()
        for thread in threads:
            thread.join(PATIENCE_S)


def asked_of_the_candidate(gateway: Any, state: Rollout) -> tuple[list[Inference], list[Inference]]:
    """Ask until the candidate's arm had `CALLS` requests; its failed attempts, and the fallback's answers to them."""
    url, publisher, routes = gateway
    routes.apply(state)
    users = (f"user-{number}" for number in range(1_000))
    answered = 0
    while answered < CALLS:
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": state.task, "messages": messages, "user": next(users), "metadata": {"conversation_id": "c"}}
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
        assert response.status_code == 200
        answered += response.headers["x-ratchet-stage"] == "fallback"
    deadline = time.monotonic() + PATIENCE_S
    while True:  # the last answer's event comes after it
        calls = [event for event in publisher.events if isinstance(event, Inference)]
        answers = [call for call in calls if call.stage == "fallback"]
        if len(answers) == CALLS:
            return [call for call in calls if call.stage == "canary"], answers
        assert time.monotonic() < deadline


@pytest.mark.parametrize("completion", ["outcome", "ticket"])
def test_a_fallback_counts_against_the_candidate_and_for_nobody(traffic: Any, gateway: Any, completion: str) -> None:
    """Each failed attempt is the candidate's error and missed completion; praise for the fallback is nobody's."""
    gates = [Gate(metric=metric, margin=0.1) for metric in METRICS]
    checks = [] if completion == "outcome" else [{"name": completion, "kind": "length"}]
    policy = RolloutPolicy(stages=[STAGE, Stage(name="100%", weight_bp=10_000)], gates=gates)
    task = TaskPolicy.model_validate({"completion": completion, "checks": checks, "rollout": policy})
    name = traffic.adapter(2).name
    state = begin(traffic.task, name, policy, None, traffic.start, traffic.new_id(), traffic.new_id())
    failed, answers = asked_of_the_candidate(gateway, state)
    assert {(call.status, call.adapter, call.rollout_id) for call in failed} == {("error", name, state.rollout_id)}
    assert [call.tags["answered_by"] for call in failed] == [call.id for call in answers]
    assert {(call.status, call.adapter) for call in answers} == {("ok", "base")}
    traffic.write(*[event for event in gateway[1].events if isinstance(event, Inference)])
    for call in answers:
        at = call.at + timedelta(seconds=1)
        said = {"at": at, "task": traffic.task, "inference_id": call.id, "value": True, "source": "http"}
        for kind in ("thumb", "outcome"):
            traffic.write(Feedback.model_validate({"id": traffic.new_id(at), "kind": kind} | said))
        score = {
            "id": traffic.new_id(at), "at": at, "task": traffic.task, "adapter": call.adapter, "target_id": call.id,
            "target": "inference", "kind": "check", "judge": "check", "rubric": "ticket", "rubric_hash": "0" * 16,
            "score": 1.0,
        }  # fmt: skip
        traffic.write(Score.model_validate(score))
    talk = {"at": traffic.start + timedelta(seconds=9), "task": traffic.task, "conversation_id": "c", "value": True}
    traffic.write(Feedback.model_validate({"id": traffic.new_id(), "kind": "thumb", "source": "http"} | talk))
    evidence = observe(traffic.store, state, task, traffic.start + timedelta(seconds=60))
    told = {metric: found.strata[0] for metric, found in evidence.by_gate.items() if found}
    seen = {metric: stratum for metric, stratum in told.items() if isinstance(stratum, Means)}
    figures = {
        (metric, arm): (sample.n, sample.total) if sample else (0, 0)
        for metric, found in seen.items()
        for arm, sample in (("stable", found.stable), ("candidate", found.candidate))
    }
    assert figures["error_rate", "candidate"] == (CALLS, CALLS)
    assert figures["completion", "candidate"] == (CALLS, 0)
    assert figures["satisfaction", "candidate"] == (0, 0)
    stable = [event for event in gateway[1].events if isinstance(event, Inference) and event.stage == "stable"]
    assert figures["error_rate", "stable"] == (len(stable), 0)
    if completion == "ticket":
        assert figures["completion", "stable"] == (0, 0), "no score of an answer in stable's own arm"
    assert evidence.requests == CALLS

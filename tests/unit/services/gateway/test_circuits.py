"""Replicas that fail, against real model servers: left alone, tried again, and users served meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from ratchet.schemas.events import Inference
from ratchet.services.rules.circuit import Thresholds
from ratchet.services.rules.placement import Placement

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
STABLE, CANDIDATE = "support@v1-aaaaaaaa", "support@v2-bbbbbbbb"
CLIENT = httpx.Client(timeout=10)
THREE = Thresholds(failures=3, cooldown_s=1000.0, longest_cooldown_s=4000.0)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def ask(world: Any, **body: Any) -> httpx.Response:
    """One chat request over plain HTTP."""
    body = {"model": "support", "messages": HELLO} | body
    return CLIENT.post(f"{world.url}/v1/chat/completions", json=body)


def eventually(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def seen(world: Any) -> None:
    """Have the gateway look at every model server now."""
    CLIENT.get(f"{world.url}/v1/models")


def metric(world: Any, name: str, server: Any) -> float:
    """One figure of one model server."""
    (line,) = [
        x for x in CLIENT.get(f"{world.url}/metrics").text.splitlines() if x.startswith(name) and server.url in x
    ]
    return float(line.rsplit(" ", 1)[1])


def requests(server: Any) -> int:
    """How often a model server was asked."""
    return len(server.requests)


def test_a_failing_replica_is_left_alone_and_tried_again(serve: Any, model_server: Any) -> None:
    """After three 503s it is asked no more; a failed trial costs its user nothing and doubles the cool-down."""
    clock, bad = Clock(), model_server(faults={"tiny": 503})
    world = serve(others=[bad], thresholds=THREE, monotonic=clock)
    seen(world)
    for _ in range(8):
        assert ask(world, model="bare").status_code == 200
    assert requests(bad) == 3
    assert metric(world, "ratchet_upstream_state", bad) == 2
    assert metric(world, "ratchet_upstream_state", world.peer) == 0
    assert metric(world, "ratchet_upstream_transitions_total", bad) == 1
    for seconds, asked in ((1001, 4), (900, 4), (1101, 5)):  # the jitter takes up to a half off
        clock.seconds += seconds
        for _ in range(2):
            assert ask(world, model="bare").status_code == 200
        assert requests(bad) == asked
        assert metric(world, "ratchet_upstream_state", bad) == 2
    bad.faults.clear()
    clock.seconds += 4001
    for _ in range(4):
        assert ask(world, model="bare").status_code == 200
    assert requests(bad) == 7
    assert metric(world, "ratchet_upstream_state", bad) == 0
    events = world.events(Inference, 18)
    assert {(event.status, event.stage) for event in events} == {("ok", "stable")}


def test_one_request_is_the_trial(serve: Any, model_server: Any) -> None:
    """While the trial is under way nobody else is sent there; its answer closes the circuit."""
    clock, bad = Clock(), model_server(faults={"tiny": 503})
    world = serve(others=[bad], thresholds=THREE, monotonic=clock)
    seen(world)
    for _ in range(6):
        ask(world, model="bare")
    clock.seconds += 1001
    release = world.hold(server=bad, only="tiny")
    with ThreadPoolExecutor() as pool:
        trial = pool.submit(ask, world, model="bare")
        eventually(lambda: requests(bad) == 4)
        assert metric(world, "ratchet_upstream_state", bad) == 1
        assert metric(world, "ratchet_upstream_in_flight", bad) == 1
        for _ in range(3):
            assert ask(world, model="bare").status_code == 200
        assert requests(bad) == 4
        release()
        assert trial.result().status_code == 200
    assert metric(world, "ratchet_upstream_state", bad) == 0
    assert metric(world, "ratchet_upstream_in_flight", bad) == 0


def test_users_are_tried_where_every_replica_is_open(serve: Any) -> None:
    """The only replica fails and is open: users' requests go there all the same, and the first answer closes it."""
    clock = Clock()
    world = serve(thresholds=THREE, monotonic=clock)
    seen(world)
    world.peer.faults["tiny"] = 503
    for _ in range(5):
        assert ask(world, model="bare").status_code == 502
    assert requests(world.peer) == 5
    assert metric(world, "ratchet_upstream_state", world.peer) == 2
    world.peer.faults.clear()
    assert ask(world, model="bare").status_code == 200
    assert metric(world, "ratchet_upstream_state", world.peer) == 0


def test_one_adapters_500s_leave_the_replica_to_the_others(serve: Any) -> None:
    """A candidate that always fails, answered for by stable on the same replica, opens nothing; nor do 404s."""
    world = serve(thresholds=THREE, monotonic=Clock())
    seen(world)
    world.roll_out(weight_bp=10_000)
    for fault in (500, 404):
        world.peer.faults[CANDIDATE] = fault
        for _ in range(8):
            assert ask(world).headers["x-ratchet-adapter"] == STABLE
    assert metric(world, "ratchet_upstream_state", world.peer) == 0


def test_most_answers_500_opens_it(serve: Any, model_server: Any) -> None:
    """A replica whose engine died answers 500 to everything: the share says so, and the other one serves."""
    bad = model_server(faults={"tiny": 500})
    world = serve(others=[bad], thresholds=THREE, monotonic=Clock())
    seen(world)
    for _ in range(2 * THREE.minimum + 2):
        ask(world, model="bare")
    assert requests(bad) == THREE.minimum
    assert metric(world, "ratchet_upstream_state", bad) == 2


@pytest.mark.parametrize("status", [400, 422])
def test_the_clients_faults_open_nothing(serve: Any, status: int) -> None:
    """However many requests a replica refuses as wrong, it is well."""
    world = serve(thresholds=THREE, monotonic=Clock())
    seen(world)
    world.peer.faults["tiny"] = status
    for _ in range(12):
        assert ask(world, model="bare").status_code == status
    assert metric(world, "ratchet_upstream_state", world.peer) == 0


def test_after_the_first_byte_nothing_is_sent_again(serve: Any, model_server: Any) -> None:
    """Streams that break off end in the client's error, not at the other replica, and open the circuit."""
    bad = model_server(faults={"tiny": "cut"})
    world = serve(others=[bad], thresholds=THREE, monotonic=Clock())
    seen(world)
    broken = 0
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        for number in range(8):
            try:
                list(client.chat.completions.create(model="bare", messages=HELLO, stream=True))
            except openai.APIError:
                broken += 1
            assert requests(bad) + requests(world.peer) == number + 1
    assert (broken, requests(bad)) == (3, 3)
    assert metric(world, "ratchet_upstream_state", bad) == 2
    assert [event.status for event in world.events(Inference, 8)].count("error") == 3


def test_a_replica_that_comes_back_is_tried_at_once(serve: Any, model_server: Any) -> None:
    """It did not even list its models; now it does, and the next request goes there without waiting."""
    away = model_server()
    away.away = True
    world = serve(others=[away], thresholds=THREE, monotonic=Clock())
    eventually(lambda: metric(world, "ratchet_upstream_state", away) == 2)
    assert ask(world, model="bare").status_code == 200
    assert requests(away) == 0
    away.away = False
    seen(world)
    for _ in range(2):
        ask(world, model="bare")
    assert requests(away) == 1
    assert metric(world, "ratchet_upstream_state", away) == 0


def test_adapters_that_are_spread_go_to_their_own_replicas(serve: Any, model_server: Any) -> None:
    """With more adapters than a replica holds, idle replicas leave an adapter to its first; the base goes to all."""
    others = [model_server(), model_server()]
    places: list[Placement] = []

    def place(urls: tuple[str, ...]) -> Placement:
        places.append(Placement(urls, per_replica=1))
        return places[0]

    world = serve(others=others, place=place)
    seen(world)
    world.roll_out(weight_bp=0)
    servers = {server.url: server for server in (*others, world.peer)}
    homes = places[0].of([STABLE, CANDIDATE])
    for _ in range(6):
        assert ask(world).headers["x-ratchet-adapter"] == STABLE
    assert requests(servers[homes[STABLE][0]]) == 6
    for server in servers.values():
        server.requests.clear()
    for _ in range(6):
        ask(world, model="bare")
    assert [requests(server) for server in servers.values()] == [2, 2, 2]


def test_a_spread_adapter_spills_over_and_falls_back_to_where_it_lies(serve: Any, model_server: Any) -> None:
    """A first replica that is loaded passes on to the second; one that lacks the adapter is passed over."""
    others = [model_server(), model_server()]
    placed: list[Placement] = []

    def place(urls: tuple[str, ...]) -> Placement:
        placed.append(Placement(urls, per_replica=1))
        return placed[0]

    world = serve(others=others, place=place)
    world.roll_out(weight_bp=0)
    servers = {server.url: server for server in (*others, world.peer)}
    first, second = (servers[url] for url in placed[0].of([STABLE, CANDIDATE])[STABLE])
    (third,) = (server for server in servers.values() if server not in (first, second))
    third.models = ["tiny"]
    seen(world)
    release = world.hold(STABLE, server=first)
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(ask, world) for _ in range(3)]
        eventually(lambda: requests(first) == 3)
        assert ask(world).status_code == 200
        assert (requests(second), requests(third)) == (1, 0)
        release()
        assert all(answer.result().status_code == 200 for answer in held)
    first.models = ["tiny"]
    seen(world)
    assert ask(world).headers["x-ratchet-adapter"] == STABLE
    assert (requests(second), requests(third)) == (2, 0)

"""Gateway and ingest are killed in mid-stream, again and again: what was accepted is stored, once."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx
import openai
import pytest
from faults.load import TASK


def test_gateway_killed_in_mid_stream(make_world: Any, each_broker: str, kills: int, show: Any) -> None:
    """kill -9 under streams, plain requests, feedback and events; each time it goes on with the spool of the dead."""
    world = make_world(each_broker)
    world.start()
    world.users.start()
    chance = random.Random(4)
    for _ in range(kills):
        world.progress()
        time.sleep(chance.uniform(0, 0.2))
        world.gateway.kill()
        world.gateway.start()
    world.progress()
    world.settle()
    assert world.gateway.stop() == 0
    ordered = world.in_order()
    figures = show(world, kills=kills, in_order=ordered)
    assert figures["cut"] >= kills / 2, "the kills were meant to fall into streams"
    assert ordered


def test_ingest_killed_in_mid_stream(make_world: Any, any_broker: str, kills: int, show: Any) -> None:
    """kill -9 between inserts and commits: what was read and not committed is read again, and counts once."""
    world = make_world(any_broker)
    world.start()
    world.users.start()
    chance = random.Random(5)
    for _ in range(kills):
        world.await_rows(50)
        time.sleep(chance.uniform(0, 0.4))
        world.ingest.kill()
        world.ingest.start()
    world.settle()
    assert world.ingest.stop() == 0
    figures = show(world, kills=kills)
    assert figures["cut"] == figures["failed"] == 0


def test_ingest_comes_and_goes(make_world: Any, any_broker: str, kills: int, show: Any) -> None:
    """A second ingest joins and leaves under load, and the first one is replaced: partitions move, nothing is lost."""
    world = make_world(any_broker)
    world.start()
    world.users.start()
    rounds = max(1, kills // 4)
    for _ in range(rounds):
        for leaves, joins in ((world.second_ingest, world.second_ingest), (world.ingest, world.ingest)):
            if joins is world.second_ingest:
                joins.start()
            world.await_rows(200)
            assert leaves.stop() == 0
            if leaves is world.ingest:
                joins.start()
    world.settle()
    assert world.ingest.stop() == 0
    figures = show(world, rounds=rounds, rebalances=4 * rounds)
    assert figures["cut"] == figures["failed"] == 0


def test_gateway_told_to_stop_in_mid_stream(make_world: Any, kills: int, show: Any) -> None:
    """SIGTERM: streams under way end as they would have, then it leaves with status 0, and the next one goes on."""
    world = make_world("embedded")
    world.start()
    world.users.start()
    stops = max(2, kills // 4)
    for _ in range(stops):
        world.progress()
        assert world.gateway.stop() == 0
        world.gateway.start()
    world.progress()
    world.settle()
    figures = show(world, stops=stops)
    assert figures["cut"] == 0


def test_a_stream_that_outlasts_the_stop(make_world: Any) -> None:
    """SIGTERM under an answer of minutes: after the grace it breaks off for its client and is logged as cancelled."""
    world = make_world("embedded")
    world.start()
    question: Any = [{"role": "user", "content": "words 300 pause 1 size 8"}]
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model=TASK, messages=question, stream=True)
        chunks = iter(raw.parse())
        assert next(chunks).choices
        assert world.gateway.stop() == 0
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(chunks)
    world.gateway.start()
    world.drain()
    assert world.stored() == {raw.headers["x-ratchet-inference-id"]: (1, "cancelled")}

"""The controller against the real engine and HTTP replicas: stages, aborts, restarts, people.

``traffic``, ``replicas`` and ``tables`` are the fixtures of this folder's conftest.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from loop_place import EVERY, POLICY, Loop, N

from ratchet.schemas.errors import StoreError
from ratchet.schemas.rollout_policy import BestArmPolicy
from ratchet.services.rules.placement import Placement


async def test_a_healthy_adapter_is_loaded_everywhere_then_goes_all_the_way(traffic: Any, replicas: list[Any]) -> None:
    """Shadow, 20%, 100%, promoted: 100% on what the 20% stage showed, since nobody is left on the stable arm."""
    loop = Loop(traffic, replicas)
    shadow = await loop.begin()
    assert all(replica.loads == [shadow.candidate] for replica in replicas)
    assert (shadow.stable, shadow.stage, shadow.mirror_bp, shadow.weight_bp) == ("base", "shadow", 10_000, 0)
    assert await loop.tick(61) == []
    mirrored = traffic.calls(shadow, "stable", loop.now, N, completed=570)
    traffic.mirror(shadow, mirrored, completed=570)
    (second,) = await loop.tick(100)
    assert (second.action, second.stage) == ("advance", "20%")
    assert [(gate.gate, gate.stable.n, gate.candidate.n) for gate in second.gates] == [
        ("completion", N, N),
        ("error_rate", N, N),
        ("latency_p95", N, N),
    ]
    loop.healthy("stable", "canary")
    (third,) = await loop.tick(100)
    assert (third.action, third.stage, third.weight_bp) == ("advance", "100%", 10_000)
    assert await loop.tick(100) == [], "no candidate request at 100% yet"
    loop.healthy("canary")
    (last,) = await loop.tick(100)
    assert (last.action, last.stable, last.previous, last.weight_bp) == ("promote", shadow.candidate, "base", 0)
    assert [(gate.gate, gate.verdict, gate.stable.n) for gate in last.gates] == [
        (name, "pass", N) for name in ("completion", "error_rate", "latency_p95", "satisfaction")
    ]
    assert loop.publisher.events == [shadow, second, third, last]


async def test_several_candidates_are_compared_and_the_best_begins_anew(traffic: Any, replicas: list[Any]) -> None:
    """Two wait, a third joins; copies of each are compared on the same prompts; the best of them alone goes on."""
    policy = POLICY.model_copy(
        update={"rollout": POLICY.rollout.model_copy(update={"best_arm": BestArmPolicy(candidates=3, margin=0.1)})}
    )
    loop = Loop(traffic, replicas, policy=policy)
    first, second = traffic.adapter(1), traffic.adapter(2)
    loop.controller.receive(first)
    loop.controller.receive(second)
    (begun,) = await loop.tick()
    assert (begun.action, begun.arms) == ("start", {second.name: 5_000, first.name: 5_000})
    third = traffic.adapter(3, loop.now)
    loop.controller.receive(third)
    (joined,) = await loop.tick(10)
    assert (joined.action, set(joined.arms)) == ("join", {first.name, second.name, third.name})
    assert all(set(replica.loads) == set(joined.arms) for replica in replicas)
    for name, completed in ((first.name, 100), (second.name, 290), (third.name, 150)):
        calls = traffic.calls(joined, "stable", loop.now, 300, completed=150)
        traffic.mirror(joined.model_copy(update={"candidate": name}), calls, completed=completed)
    (chosen,) = await loop.tick(10)
    assert (chosen.action, chosen.candidate, chosen.arms, chosen.stage) == ("choose", second.name, {}, "shadow")
    assert chosen.stage_started_at == loop.now
    assert await loop.tick(70) == [], "no gate takes the figures that chose it"


async def test_a_controller_that_is_replaced_at_every_step_loses_nothing_and_repeats_nothing(
    traffic: Any, replicas: list[Any]
) -> None:
    """Each knows but the registry and the last table: a proof that was written counts, and is not written again."""
    adapter, tables = traffic.adapter(1), []

    async def after(seconds: float, *arms: str) -> Loop:
        loop = Loop(traffic, replicas)
        loop.now = tables[-1].at if tables else traffic.start
        for event in (adapter, *tables[-1:]):
            loop.controller.receive(event)
        tables.extend(await loop.tick(seconds))
        loop.healthy(*arms)
        return loop

    loop = await after(0)
    traffic.mirror(tables[0], traffic.calls(tables[0], "stable", loop.now, N, completed=570), completed=570)
    await after(30)
    await after(70, "stable", "canary")
    await after(30)
    await after(30)
    await after(70, "canary")
    await after(100)
    await after(100)
    assert [(table.version, table.action, table.stage) for table in tables] == [
        (1, "start", "shadow"),
        (2, "prove", "shadow"),
        (3, "advance", "20%"),
        (4, "prove", "20%"),
        (5, "advance", "100%"),
        (6, "promote", "100%"),
    ]
    assert [len(table.proved) for table in tables] == [0, 3, 0, 4, 4, 4]


async def test_failed_calls_count_as_not_completed_and_abort(traffic: Any, replicas: list[Any]) -> None:
    """A candidate whose calls fail (users get the fallback) is aborted at once with the figures in the audit log."""
    loop = Loop(traffic, replicas)
    loop.controller.receive((await loop.begin()).model_copy(update={"stage": "20%", "weight_bp": 2_000, "version": 2}))
    await loop.tick()
    traffic.calls(loop.state, "stable", loop.now, N, completed=590)
    traffic.calls(loop.state, "canary", loop.now, 150, completed=100, errors=50)
    (table,) = await loop.tick(1)
    assert (table.action, table.status, table.weight_bp, table.stable) == ("abort", "aborted", 0, "base")
    figures = {gate.gate: (gate.verdict, gate.candidate.n, gate.candidate.value) for gate in table.gates}
    assert figures["completion"] == ("fail", 150, pytest.approx(100 / 150))
    assert figures["error_rate"] == ("fail", 150, pytest.approx(50 / 150))
    assert await loop.tick(1_000) == [], "what was aborted never comes back by itself"


async def test_a_slow_candidate_is_aborted(traffic: Any, replicas: list[Any]) -> None:
    """Twice the latency exceeds the stable arm's own P95 plus half of it."""
    loop = Loop(traffic, replicas)
    shadow = await loop.begin()
    calls = traffic.calls(shadow, "stable", loop.now, N, completed=570)
    traffic.mirror(shadow, calls, completed=570, latency_ms=200)
    (table,) = await loop.tick(10)
    assert table.action == "abort"
    assert table.reason.startswith("latency_p95: 100.0% (")
    assert f"of the candidate's {N} calls took longer than 164 ms" in table.reason


async def test_nothing_carried_to_the_last_stage_means_no_promotion(traffic: Any, replicas: list[Any]) -> None:
    """At 100% without an earlier stage with both arms the rollout waits and then pauses: nothing was compared."""
    loop = Loop(traffic, replicas)
    unknown = {"rollout_id": traffic.new_id(), "stage": "100%", "weight_bp": 10_000, "version": 2}
    loop.controller.receive((await loop.begin()).model_copy(update=unknown))
    await loop.tick()
    loop.healthy("canary")
    assert await loop.tick(300) == []
    assert {gate.reason for gate in loop.controller.decisions[traffic.task].gates} == {
        f"{name}: nothing observed" for name in ("completion", "error_rate", "latency_p95", "satisfaction")
    }
    (table,) = await loop.tick(300)
    assert (table.action, table.status, table.weight_bp) == ("pause", "paused", 10_000)


async def test_nothing_starts_before_every_replica_confirms(
    traffic: Any, replicas: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One replica that refuses to load holds the rollout back; it is said once, and goes on when it can."""
    loop = Loop(traffic, replicas)
    replicas[1].refuses = True
    loop.controller.receive(traffic.adapter(1))
    with caplog.at_level(logging.WARNING, "ratchet.controller"):
        for _ in range(3):
            assert await loop.tick(1) == []
        assert [message for message in caplog.messages if "no adapter_config.json there" in message] == caplog.messages
        assert len(caplog.messages) == 1
    replicas[1].refuses = False
    (table,) = await loop.tick(1)
    assert table.action == "start"


async def test_a_restarted_replica_gets_its_adapters_back(traffic: Any, replicas: list[Any]) -> None:
    """Stable, previous and candidate are loaded again where a replica forgot them; an aborted candidate is not."""
    loop = Loop(traffic, replicas)
    first = await loop.begin(1)
    loop.asks("promote", full=True)
    await loop.tick(1)
    second = await loop.begin(2)
    replicas[0].adapters.clear()
    await loop.tick(1)
    assert replicas[0].adapters.keys() == {first.candidate, second.candidate}
    loop.asks("abort")
    await loop.tick(1)
    replicas[0].adapters.clear()
    await loop.tick(1)
    assert replicas[0].adapters.keys() == {first.candidate}


async def test_adapters_that_are_too_many_lie_on_their_own_replicas(traffic: Any, replicas: list[Any]) -> None:
    """The second adapter is one too many for each replica: it is loaded on its two of three, and rolled out."""
    replicas.append(type(replicas[0])())
    loop = Loop(traffic, replicas, placement=Placement(tuple(replica.url for replica in replicas), 1))
    first = await loop.begin(1)
    assert all(replica.loads == [first.candidate] for replica in replicas)
    loop.asks("promote", full=True)
    await loop.tick(1)
    second = await loop.begin(2)
    homes = Placement(tuple(replica.url for replica in replicas), 1).of([first.candidate, second.candidate])
    having = {replica.url for replica in replicas if second.candidate in replica.loads}
    assert having == set(homes[second.candidate])
    assert len(having) == 2


async def test_a_newer_adapter_supersedes_one_that_nobody_saw_and_waits_for_one_that_users_see(
    traffic: Any, replicas: list[Any]
) -> None:
    """In shadow the newer one takes over; at 20% it waits until the rollout before it has ended."""
    loop = Loop(traffic, replicas)
    first = await loop.begin(1)
    loop.controller.receive(traffic.adapter(2, loop.now + EVERY))
    ended, begun = await loop.tick(1)
    assert (ended.action, ended.candidate, ended.mirror_bp) == ("supersede", first.candidate, 0)
    assert (begun.action, begun.version, begun.stable) == ("start", ended.version + 1, "base")
    loop.asks("promote")
    await loop.tick(1)
    assert loop.state.stage == "20%"
    third = traffic.adapter(3, loop.now + EVERY)
    loop.controller.receive(third)
    assert await loop.tick(1) == []
    loop.asks("abort")
    tables = await loop.tick(1) + await loop.tick(1)
    assert [table.action for table in tables] == ["abort", "start"]
    assert loop.state.candidate == third.name


async def test_people_are_answered_once_and_never_overridden(traffic: Any, replicas: list[Any]) -> None:
    """A paused rollout stays whatever the evidence says; a replayed instruction is not followed again."""
    loop = Loop(traffic, replicas)
    shadow = await loop.begin()
    asked = loop.asks("pause", why="looking into it")
    (paused,) = await loop.tick(1)
    assert (paused.status, paused.actor, paused.reason, paused.operator_seen) == (
        "paused",
        "ada",
        "looking into it",
        asked.id,
    )
    calls = traffic.calls(shadow, "stable", loop.now, N, completed=570)
    traffic.mirror(shadow, calls, completed=0)
    loop.controller.receive(asked)
    assert await loop.tick(10_000) == []
    restarted = Loop(traffic, replicas)
    for event in (shadow, asked, paused):
        restarted.controller.receive(event)
    assert await restarted.tick() == []
    assert restarted.state == paused


async def test_an_instruction_given_while_no_controller_ran_is_followed(traffic: Any, replicas: list[Any]) -> None:
    """After a restart the topic's last instruction that no table answers is carried out."""
    loop = Loop(traffic, replicas)
    shadow = await loop.begin()
    restarted = Loop(traffic, replicas)
    restarted.controller.receive(shadow)
    restarted.asks("abort")
    (table,) = await restarted.tick()
    assert (table.action, table.actor) == ("abort", "ada")


async def test_adapters_of_two_base_models_are_loaded_each_where_its_own_is(traffic: Any, replicas: list[Any]) -> None:
    """A candidate on the next base model goes to that pool alone; a provider's must be there, and is not loaded."""
    here, there = replicas
    loop = Loop(traffic, [here, there], placement=Placement((here.url,), pools={"next": (there.url,)}))
    first = await loop.begin()
    (loaded,) = here.loads
    assert (loaded, there.loads) == (first.candidate, [])
    loop.asks("abort")
    await loop.tick()
    second = traffic.adapter(2, loop.now).model_copy(update={"base_model": "next"})
    loop.controller.receive(second)
    (table,) = await loop.tick()
    assert table.candidate == second.name
    assert (here.loads, there.loads) == ([first.candidate], [second.name])
    loop.asks("abort")
    await loop.tick()
    third = traffic.adapter(3, loop.now).model_copy(update={"base_model": "next", "served_as": "ft:next:1"})
    loop.controller.receive(third)
    assert await loop.tick() == [], "its provider does not serve it"
    there.adapters["ft:next:1"] = "ft:next:1"
    (table,) = await loop.tick()
    assert (table.candidate, there.loads) == (third.name, [second.name])


class Away:
    """A ClickHouse that is away."""

    def query(self, name: str, /, **_: Any) -> list[dict[str, Any]]:
        """Refuse."""
        raise StoreError(f"ClickHouse: {name}: connection refused")


async def test_without_clickhouse_nothing_is_decided_and_people_still_are_heard(
    traffic: Any, replicas: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Not even a timeout is acted on without evidence; a person's abort goes through; vLLM may be away too."""
    shadow = await Loop(traffic, replicas).begin()
    loop = Loop(traffic, replicas, store=Away())
    loop.controller.receive(shadow)
    with caplog.at_level(logging.WARNING, "ratchet.controller"):
        assert await loop.controller.tick(loop.now + 100 * EVERY) == []
        assert await loop.controller.tick(loop.now + 101 * EVERY) == []
    assert len([message for message in caplog.messages if "nothing is decided without ClickHouse" in message]) == 1
    for replica in replicas:
        replica.stop()
    loop.asks("abort")
    (table,) = await loop.controller.tick(loop.now)
    assert (table.action, table.mirror_bp) == ("abort", 0)


async def test_a_lost_topic_does_not_restart_from_the_base_model(traffic: Any, replicas: list[Any]) -> None:
    """Where the topic has no table but ClickHouse has, that one is published again, not a first rollout."""
    before = Loop(traffic, replicas)
    await before.begin()
    before.asks("promote", full=True)
    (promoted,) = await before.tick(1)
    loop = Loop(traffic, replicas)
    loop.controller.receive(traffic.adapter(1))
    assert await loop.tick() == []
    assert loop.publisher.events == [promoted]
    assert loop.state == promoted


async def test_an_older_table_on_the_topic_is_answered_with_the_newer_one(traffic: Any, replicas: list[Any]) -> None:
    """A topic that was seeded behind the running controller gets the controller's table again."""
    loop = Loop(traffic, replicas)
    first = await loop.begin()
    loop.asks("pause")
    (paused,) = await loop.tick(1)
    loop.publisher.events.clear()
    loop.controller.receive(first)
    await loop.tick()
    assert loop.publisher.events == [paused]
    assert loop.state == paused


async def test_a_vllm_that_hangs_delays_no_abort(traffic: Any, replicas: list[Any]) -> None:
    """While a replica does not answer, what a person asks is carried out and published."""
    loop, stop = Loop(traffic, replicas), asyncio.Event()
    await loop.begin()
    replicas[0].answers.clear()
    running = asyncio.create_task(loop.controller.run(stop))
    await asyncio.to_thread(replicas[0].asked.wait)
    loop.asks("abort")
    while loop.state.status != "aborted":  # noqa: ASYNC110 - the controller has no event to wait for
        await asyncio.sleep(0.01)
    replicas[0].answers.set()
    stop.set()
    await running

"""Kafka or ClickHouse is away for a minute: users notice nothing, and everything is stored once afterwards."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from faults.world import World
from parts import metric, wait_for

from ratchet.infra.kafka.admin import lag


def while_away(world: World, away_s: float, value: Any) -> list[float]:
    """Sample ``value`` until the time is over, while the users go on."""
    samples, until = [], time.monotonic() + away_s
    while time.monotonic() < until:
        samples.append(value())
        time.sleep(min(2.0, away_s / 10))
    return samples


def test_kafka_away(make_world: Any, each_broker: str, away_s: float, show: Any) -> None:
    """The embedded broker is stopped (it forgets when it ends), a real one killed and started on its data."""
    if each_broker == "named":
        pytest.skip("a Kafka that the tests did not start is not taken away")
    world = make_world(each_broker)
    world.start()
    world.users.start()
    world.progress(1000)
    before, told = world.gateway.rss_mb(), world.journal.look()
    if each_broker == "embedded":
        world.broker.process.send_signal(signal.SIGSTOP)
    else:
        world.broker.kill()
    during = while_away(world, away_s, world.gateway.rss_mb)
    waited, meanwhile = metric(world.url, "ratchet_spool_records"), world.journal.look()
    spool_mb = metric(world.url, "ratchet_spool_bytes") / 2**20
    if each_broker == "embedded":
        world.broker.process.send_signal(signal.SIGCONT)
    else:
        world.broker.start()
    back = time.monotonic()
    wait_for(lambda: metric(world.url, "ratchet_spool_records") < 200, 60, 0.1)
    caught_up_s = round(time.monotonic() - back, 1)
    world.progress(500)
    after, dropped = world.gateway.rss_mb(), metric(world.url, "ratchet_events_dropped_total")
    world.settle()
    ordered = world.in_order()
    figures = show(
        world, away_s=away_s, waited=int(waited), spool_mb=round(spool_mb, 1), caught_up_s=caught_up_s,
        in_order=ordered, rss_mb={"before": before, "most_during": max(during), "after": after},
    )  # fmt: skip
    assert meanwhile["inference"] > told["inference"] + away_s
    assert waited >= away_s, "Kafka was meant to be away"
    assert figures["cut"] == figures["failed"] == dropped == 0
    assert ordered
    assert max(*during, after) < before + 80


def test_clickhouse_away(make_world: Any, away_s: float, show: Any) -> None:
    """ClickHouse is killed and started on its data: ingest waits, its lag grows, and it goes on by itself."""
    world = make_world("embedded")
    world.start()
    world.users.start()
    world.await_rows(300)
    world.clickhouse.kill()
    lags = while_away(world, away_s, lambda: lag(world.bootstrap, "ingest"))
    world.clickhouse.start()
    back = time.monotonic()
    wait_for(lambda: lag(world.bootstrap, "ingest") < 500, 60, 0.1)
    caught_up_s = round(time.monotonic() - back, 1)
    world.settle()
    assert world.ingest.stop() == 0
    said = (world.folder / "ingest.log").read_text()
    figures = show(world, away_s=away_s, most_lag=max(lags), caught_up_s=caught_up_s)
    assert lags[-1] > lags[0] + away_s
    assert said.count("rows wait") == said.count("takes rows again") == 1
    assert figures["cut"] == figures["failed"] == 0

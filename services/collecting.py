"""`ratchet adapters gc`: what can neither be served nor rolled back to gives its files back.

An adapter is retired in three steps: the registry says so (from then on no rollout of it can begin), the routing
tables are read once more, and only what still none of them names loses its files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from ratchet.infra import clock
from ratchet.infra.artifacts import ArtifactStore
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.events import Adapter
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.schemas.topics import ROLLOUT
from ratchet.services import wiring
from ratchet.services.controller.seed import adapters, rollouts
from ratchet.trainers.adapters import collecting
from ratchet.trainers.rules.collecting import Verdict, judge

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.kafka.publisher import Publisher
    from ratchet.infra.settings import Settings

ABANDONED = timedelta(days=1)
"""A folder that is being written is younger."""
SETTLE_S = 10.0
FLUSH_S = 30.0


@dataclass
class Report:
    """What stays and why, and what goes; ``bytes`` on this machine's disk."""

    dry_run: bool
    kept: list[dict[str, str]] = field(default_factory=list)
    retired: list[dict[str, object]] = field(default_factory=list)
    """``name, reason, bytes, published`` (whether the artifact store has it)."""
    jobs: list[str] = field(default_factory=list)
    scratch: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    bytes: int = 0


def collect(
    s: Settings,
    *,
    keep: int,
    keep_jobs: int,
    dry_run: bool,
    sure: Callable[[Report], bool] = lambda report: True,
    settle: Callable[[], None] = lambda: time.sleep(SETTLE_S),
) -> Report:
    """Find what can go, and take it away.

    Args:
        s: the settings.
        keep: of each task, how many adapters that were stable once stay beside those that its table names.
        keep_jobs: how many ended jobs keep their weights and rows.
        dry_run: only find.
        sure: asked with what would go; False leaves everything.
        settle: gives the controller time to carry out what it had begun before it heard of the retirement.

    Raises:
        BrokerError: Kafka, which has the routing tables in force, is away: nothing was removed.
        StoreError: ClickHouse is away: likewise.
        ArtifactError: the artifact store is away; doing it again goes on.
        TrainingError: a folder cannot be changed; likewise.
    """
    from ratchet.infra.kafka.admin import wait_for_broker

    wait_for_broker(s.kafka, 5)
    artifacts = ArtifactStore(s.artifacts) if s.artifacts else None
    with wiring.store(s) as store:
        known = {one.name: one for one in adapters(store)}
        report = Report(dry_run)
        chosen = {one.name: one.reason for one in _judged(s, store, known, keep, report) if not one.keep}
        published = _published(artifacts, known)
        here = {name: s.home / "adapters" / name for name in chosen}
        for name, reason in chosen.items():
            size = collecting.loadable_bytes(here[name])
            if size or name in published:
                report.retired.append({"name": name, "reason": reason, "bytes": size, "published": name in published})
        now = clock.now()
        jobs, left = collecting.ended_jobs(s.home, keep_jobs), collecting.scratch(s.home, now - ABANDONED)
        uploads = artifacts.unfinished(now - ABANDONED) if artifacts else []
        report.jobs, report.scratch, report.uploads = [one.name for one in jobs], [one.name for one in left], uploads
        report.bytes = sum(int(str(one["bytes"])) for one in report.retired)
        if dry_run or not sure(report):
            report.dry_run = True
            return report
        report.bytes = sum(collecting.empty_job(one) for one in jobs) + sum(map(collecting.remove_scratch, left))
        for upload in uploads:
            assert artifacts is not None, "which had the uploads"
            artifacts.discard(upload)
        names = [str(one["name"]) for one in report.retired]
        gone = {name: collecting.tombstone(known[name], chosen[name], now) for name in names}
        if gone:
            again = _retire(s, store, known, gone, keep, settle)
            report.retired = [one for one in report.retired if one["name"] not in again]
        for one in report.retired:
            name = str(one["name"])
            if here[name].is_dir():
                report.bytes += collecting.bury(here[name], gone[name])
            if artifacts is not None and name in published:
                artifacts.retire(name, gone[name].to_bytes())
    return report


def _judged(s: Settings, store: Store, known: dict[str, Adapter], keep: int, report: Report) -> list[Verdict]:
    """Every adapter's verdict by what Kafka and ClickHouse say together; whichever is behind keeps too many."""
    tables, asked = _topic(s)
    promoted: dict[str, list[str]] = {}
    for row in store.query("promotions"):
        promoted.setdefault(row["task"], []).append(row["stable"])
    served = [one.base_model_path.resolve() for one in s.pools.values() if one.base_model_path]
    served += [s.base_model_path.resolve()] if s.base_model_path else []
    needed = {name for name, one in known.items() if Path(one.path).resolve() in served}
    verdicts = judge(known.values(), [*tables, *rollouts(store)], asked, promoted, needed, keep)
    report.kept = [{"name": one.name, "reason": one.reason} for one in verdicts if one.keep]
    return verdicts


def _topic(s: Settings) -> tuple[list[Rollout], list[Operator]]:
    """The last routing table of each task, and the last instruction to each, as Kafka has them now."""
    from ratchet.infra.kafka.tail import read_all

    tables: dict[str, Rollout] = {}
    asked: dict[str, Operator] = {}
    for record in read_all(s.kafka, ROLLOUT.name):
        match orjson.loads(record.value or b"null"):
            case {"schema": "rollout.v1"}:
                table = parse(Rollout, record.value or b"")
                tables[table.task] = table
            case {"schema": "operator.v1"}:
                one = parse(Operator, record.value or b"")
                asked[one.task] = one
    return list(tables.values()), list(asked.values())


def _published(artifacts: ArtifactStore | None, known: dict[str, Adapter]) -> set[str]:
    """The adapters whose files the artifact store has."""
    if artifacts is None:
        return set()
    there = {name: artifacts.manifest(name) for name in artifacts.names() if name in known}
    return {name for name, raw in there.items() if raw is not None and parse(Adapter, raw).status != "retired"}


def _retire(
    s: Settings,
    store: Store,
    known: dict[str, Adapter],
    gone: dict[str, Adapter],
    keep: int,
    settle: Callable[[], None],
) -> set[str]:
    """Say that adapters are retired, and look again; returns those that came into use meanwhile, as they were."""
    publisher = wiring.publisher(s, "ratchet-gc")
    try:
        _say(publisher, [one for name, one in gone.items() if known[name].status != "retired"])
        settle()
        kept = {one.name for one in _judged(s, store, known, keep, Report(False)) if one.keep}
        again = kept & gone.keys()
        now = clock.now()
        _say(publisher, [known[name].model_copy(update={"id": clock.new_id(), "at": now}) for name in sorted(again)])
        return again
    finally:
        publisher.close()


def _say(publisher: Publisher, events: list[Adapter]) -> None:
    for event in events:
        publisher.publish(event)
    if left := publisher.flush(FLUSH_S):
        raise BrokerError(f"{left} of {len(events)} events of the registry did not reach Kafka: nothing was removed")

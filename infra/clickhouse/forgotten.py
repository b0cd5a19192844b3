"""A user's deletion request in ClickHouse: what it finds, the record of it, and taking the rows away.

The record outlasts the rows: Kafka may hold the events for longer, and whoever reads topics into the tables again
(a rebuild, a redelivery) calls `sweep` afterwards. It names nobody: ``who`` is a hash of the user.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.ddl import Cluster, literal
from ratchet.schemas.rows import instant

KINDS = ("inferences", "shadows", "feedback")
_REQUEST = "00000000-0000-0000-0000-000000000000"
_CHUNK = 1_000
"""Ids in one bound parameter: it travels in the URL."""
# waited for, on every replica; what is to go is named by a table, which replicas read alike
_NOW = "SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1"

Ids = dict[str, set[str]]
"""Ids by what they are of: `KINDS`, and ``pairs`` and ``anchors`` (the ids under which judges were asked of those)."""


def who_is(user: str) -> str:
    """What the record calls a user: the SHA-256, in hex, of the user as events carry it."""
    return hashlib.sha256(user.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """That a user's events up to an instant go; ``tenant`` "" is every tenant."""

    who: str
    tenant: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """The events of a request that are stored, and the tasks that they are of."""

    ids: Ids = field(default_factory=dict)
    tasks: set[str] = field(default_factory=set)


def found(store: Store, request: Request) -> Found:
    """Look for a user's events.

    Raises:
        StoreError: ClickHouse is away.
    """
    there = Found({kind: set() for kind in KINDS}, set())
    asked = {"who": request.who, "tenant": request.tenant, "until": instant(request.until)}
    for row in store.query("forget_found", **asked):
        there.ids[row["kind"]].add(str(row["id"]))
        there.tasks.add(row["task"])
    return there


def recorded(store: Store, who: str = "") -> list[tuple[Request, Ids]]:
    """The requests on record (of one user), each with the ids that were its."""
    requests = []
    for row in store.query("forget_recorded", who=who):
        ids: Ids = {}
        for kind, event_id in row["events"]:
            ids.setdefault(kind, set()).add(str(event_id))
        requests.append((Request(row["who"], row["tenant"], row["until"]), ids))
    return requests


def record(store: Store, request: Request, ids: Ids, at: datetime) -> None:
    """Write a request down, with the ids that are its; before anything of it is deleted."""
    about: dict[str, Any] = {
        "who": request.who,
        "tenant": request.tenant,
        "until": instant(request.until),
        "at": instant(at),
    }
    rows = [about | {"kind": "request", "event_id": _REQUEST}]
    rows += [about | {"kind": kind, "event_id": id} for kind, some in sorted(ids.items()) for id in sorted(some)]
    store.insert_rows("forgotten_log", rows)


def sweep(store: Store, cluster: Cluster | None, at: datetime) -> Counter[str]:
    """Take away whatever is stored of the requests on record; returns how many events that were, by kind.

    Returns once the rows are gone from the tables' files. Without a request on record nothing is done.

    Args:
        store: migrated.
        cluster: whose servers have the tables; None is one server.
        at: now, for the record of events that only turned up now.

    Raises:
        StoreError: ClickHouse is away; doing it again goes on.
    """
    gone: Counter[str] = Counter()
    requests = recorded(store)
    for request, known in requests:
        there = found(store, request)
        gone.update({kind: len(some) for kind, some in there.ids.items()})
        new = {kind: some - known.get(kind, set()) for kind, some in there.ids.items()}
        if any(new.values()):
            record(store, request, new, at)
    if requests:
        forgotten = f"(SELECT event_id FROM {store.database}.forgotten_log)"  # noqa: S608 - no value in it
        for table in KINDS:
            _delete(store, cluster, f"{table}_log", f"id IN {forgotten}")
        _delete(store, cluster, "scores_log", f"target_id IN {forgotten}")
    return gone


def drop_pairs(store: Store, cluster: Cluster | None, task: str) -> None:
    """Take away all pairs of a task, to be derived again: a pair that lost a vote would not replace its older self."""
    _delete(store, cluster, "pairs_log", f"task = {literal(task)}")


def in_chunks(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    """Ids in lists that fit into a statement's parameters."""
    left = iter(sorted(ids))
    while chunk := list(islice(left, _CHUNK)):
        yield chunk


def _delete(store: Store, cluster: Cluster | None, table: str, where: str) -> None:
    statement = f"ALTER TABLE {store.database}.{table} DELETE WHERE {where} {_NOW}"
    for one in cluster.rewrite(statement) if cluster else [statement]:
        store.command(one)

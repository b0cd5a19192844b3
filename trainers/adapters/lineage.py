"""Lineage, both ways: from an adapter down to the events it learned from, and up from an event to all who saw it.

Rows are read from the dataset versions on this machine, which say what they were made of; manifests, the audit log of
rollouts and what kind an event is come from ClickHouse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.infra.clickhouse.forgotten import in_chunks
from ratchet.schemas.errors import DatasetError, TrainingError
from ratchet.schemas.events import Adapter
from ratchet.trainers import dataset as datasets
from ratchet.trainers.dataset import SIDES, Dataset
from ratchet.trainers.rules.dataset import Row, id_of, made_of, subset

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store

SHADOW = "shadow"
UNKNOWN = "not stored any more"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that an adapter had: how many, by source, and the events behind them by kind."""

    n: int
    sources: dict[str, int]
    events: dict[str, list[str]]
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Descent:
    """Where an adapter comes from, and what became of it."""

    adapter: Adapter
    ancestors: list[str]
    """The adapters that were stable when it, its parent and so on were trained: the nearest first."""
    children: list[str]
    """Adapters that were trained while it was stable."""
    versions: list[dict[str, Any]]
    """The dataset version and those it was made of: ``version, kind, built, change, erased``."""
    trained: Rows | None
    """None where the rows are gone or not on this machine; ``missing`` says why."""
    held_out: Rows | None
    missing: str
    rollouts: list[dict[str, Any]]
    answers: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A dataset version that has rows made of an event, and the adapters that were trained on it."""

    version: str
    task: str
    kind: str
    rows: dict[str, list[str]]
    """By side: the rows' ids."""
    adapters: list[dict[str, Any]] = field(default_factory=list)
    """``name, status, saw``: ``trained`` on it, ``held_out`` (measured on it), ``left_out`` (`max_pairs`), or
    ``rewarded`` by a reward model that was trained on it."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What became of an event or a pair."""

    id: str
    kind: str
    pairs: list[dict[str, Any]]
    datasets: list[Seen]
    erased: list[str]
    """Versions whose rows a deletion request took: nobody can say whether they held it."""
    answers: list[dict[str, Any]]
    """Where the adapters that learned from it served."""


def registered(store: Store) -> dict[str, Adapter]:
    """Every adapter's manifest, by name, in the order of registration."""
    manifests = (Adapter.model_validate_json(row["manifest"]) for row in store.query("adapter_manifests"))
    return {one.name: one for one in manifests}


def of_adapter(store: Store, home: Path, name: str) -> Descent:
    """Follow an adapter down to its events.

    Raises:
        TrainingError: it is not in the registry.
        StoreError: ClickHouse is away.
    """
    known = registered(store)
    adapter = known.get(name)
    if adapter is None:
        raise TrainingError(f"{name!r} is not in the registry; `ratchet adapters list` shows what is")
    trained = held = None
    missing = ""
    versions: list[dict[str, Any]] = []
    try:
        dataset = datasets.find(home, adapter.dataset)
        versions = _chain(home, dataset)
        rows = {side: dataset.rows(side) for side in SIDES}
        trained = _rows(store, _part(rows["train"], adapter.params))
        held = _rows(store, rows["holdout"])
    except DatasetError as error:
        missing = str(error)
    return Descent(
        adapter=adapter,
        ancestors=ancestors(known, name),
        children=[one.name for one in known.values() if name in one.parents],
        versions=versions,
        trained=trained,
        held_out=held,
        missing=missing,
        rollouts=store.query("lineage_rollouts", task=adapter.task, name=name),
        answers=store.query("lineage_answers", names=[name]),
    )


def of_event(store: Store, home: Path, id: str) -> Traces:
    """Follow an inference, a piece of feedback, a shadow answer, a score, or a pair up to every adapter that saw it.

    Raises:
        DatasetError: a version on this machine is damaged.
        StoreError: ClickHouse is away.
    """
    known = registered(store)
    versions = datasets.versions(home)
    seen = [found for one in versions if not one.erased and (found := _seen(one, id, known.values())) is not None]
    saw = sorted({one["name"] for each in seen for one in each.adapters if one["saw"] in ("trained", "rewarded")})
    kinds = events_by_kind(store, [id])
    pairs = store.query("lineage_pairs", id=id)
    return Traces(
        id=id,
        kind=next((kind for kind in kinds if kind != UNKNOWN), "pair" if _is_row(id, pairs, seen) else UNKNOWN),
        pairs=pairs,
        datasets=seen,
        erased=[one.version for one in versions if one.erased],
        answers=store.query("lineage_answers", names=saw) if saw else [],
    )


def ancestors(known: Mapping[str, Adapter], name: str) -> list[str]:
    """The parents, their parents and so on, each once, the nearest first; the registry may lack some."""
    found: list[str] = []
    waiting = list(known[name].parents)
    while waiting:
        one = waiting.pop(0)
        if one != name and one not in found:
            found.append(one)
            waiting += known[one].parents if one in known else []
    return found


def events_by_kind(store: Store, ids: Iterable[str]) -> dict[str, list[str]]:
    """Sort event ids by what they are; those that ClickHouse has no more come last."""
    wanted = set(ids)
    events = {id for id in wanted if len(id) == _UUID_LENGTH}
    found: dict[str, list[str]] = {}
    for some in in_chunks(events):
        for row in store.query("lineage_events", ids=some):
            found.setdefault(row["kind"], []).append(row["event_id"])
    left = wanted - {id for some in found.values() for id in some}
    return {kind: sorted(some) for kind, some in sorted(found.items())} | ({UNKNOWN: sorted(left)} if left else {})


_UUID_LENGTH = 36


def _rows(store: Store, rows: Sequence[Row]) -> Rows:
    sources = Counter(str(row.get("source", "")) for row in rows)
    events = {id for row in rows for id in made_of(row)}
    return Rows(len(rows), dict(sorted(sources.items())), events_by_kind(store, events), [id_of(row) for row in rows])


def _part(rows: list[Row], params: Mapping[str, Any]) -> list[Row]:
    """What a recipe trained on: all rows, or the part that ``max_pairs`` chose."""
    most = params.get("max_pairs")
    return rows if most is None else subset(rows, int(most))


def _chain(home: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """A version and what it was made of, the nearest first; a parent that is not on this machine ends it."""
    by_version = {one.version: one for one in datasets.versions(home, dataset.task)}
    found: list[dict[str, Any]] = []
    at: Dataset | None = dataset
    while at is not None:
        manifest = at.manifest
        facts = {"version": at.version, "kind": at.kind, "built": manifest["built"], "erased": at.erased}
        found.append(facts | {"change": manifest.get("change", ""), "created_at": manifest["created_at"]})
        at = by_version.get(str(manifest["parent"]))
    return found


def _seen(dataset: Dataset, id: str, adapters: Collection[Adapter]) -> Seen | None:
    """Which rows of a version are made of an event, and who was trained on them; None where none is."""
    if not any(id.encode() in datasets.read_bytes(dataset.file(side)) for side in SIDES):
        return None
    rows = {side: dataset.rows(side) for side in SIDES}
    mine = {side: [row for row in some if id == id_of(row) or id in made_of(row)] for side, some in rows.items()}
    if not any(mine.values()):
        return None
    seen = Seen(
        dataset.version, dataset.task, dataset.kind, {side: [id_of(row) for row in some] for side, some in mine.items()}
    )
    for adapter in adapters:
        if adapter.dataset == dataset.version:
            part = {id_of(row) for row in _part(rows["train"], adapter.params)} if mine["train"] else set()
            saw = "trained" if part & set(seen.rows["train"]) else "left_out" if mine["train"] else "held_out"
            seen.adapters.append({"name": adapter.name, "status": adapter.status, "saw": saw})
    trained = {one["name"] for one in seen.adapters if one["saw"] == "trained"}
    seen.adapters.extend(
        {"name": one.name, "status": one.status, "saw": "rewarded"}
        for one in rewarded_by(trained, adapters)
        if one.name not in trained
    )
    return seen


def rewarded_by(models: Collection[str], adapters: Iterable[Adapter]) -> list[Adapter]:
    """The adapters that learned from the word of one of these reward models."""
    return [one for one in adapters if one.params.get("reward_adapter") in models]


def _is_row(id: str, pairs: Sequence[Mapping[str, Any]], seen: Sequence[Seen]) -> bool:
    ids = {str(one["pair_id"]) for one in pairs} | {row for one in seen for some in one.rows.values() for row in some}
    return id in ids

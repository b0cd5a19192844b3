"""`ratchet forget`: everything that holds a user's data, listed; and deleted, with what was made of it made again.

The record of the request is written first (a file under ``<home>/forgotten`` and rows of ``forgotten``), so a run
that was killed is finished by the next one, and a rebuild from topics leaves the same events out again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from ratchet.consumers import anchor_files
from ratchet.infra import clock
from ratchet.infra.clickhouse import forgotten
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.forgotten import Ids, Request
from ratchet.infra.settings import Settings
from ratchet.schemas.errors import BrokerError, DatasetError
from ratchet.schemas.events import Request as Asked
from ratchet.schemas.ids import derived_id
from ratchet.services import wiring
from ratchet.services.learning import derive_pairs, evaluation_files
from ratchet.trainers import forgetting
from ratchet.trainers.evaluation.held_out import EvaluationSet
from ratchet.trainers.forgetting import Mine
from ratchet.trainers.rules.dataset import question

NOT_REACHED = (
    "Kafka keeps the events in its topics until their retention ends (a rebuild leaves them out)",
    "files that were exported, and backups, are not known here",
    "hourly counts and the words that drift counts per hour are of all users together and stay",
)
"""What a person who answers the request has to know."""


@dataclass
class Report:
    """What holds the user's data; after a run that was no dry one, what became of it."""

    who: str
    dry_run: bool
    events: dict[str, int] = field(default_factory=dict)
    scores: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    """By task: pairs, built or dropped, in which the user's feedback or answers had a part."""
    datasets: list[dict[str, Any]] = field(default_factory=list)
    """``version, task, kind, rows, replaced_by``."""
    adapters: list[dict[str, Any]] = field(default_factory=list)
    """``name, status, dataset``: trained on the user's data; retire or retrain them."""
    copies: list[str] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, int] = field(default_factory=dict)
    """By file: frozen prompts that the user asked word by word; they are yours to replace, nothing changes them."""
    judge_cache: int | None = None
    behind: int | None = None
    """Records that ingest has yet to read, among them maybe the user's: run it again; None: Kafka is away."""
    not_reached: tuple[str, ...] = NOT_REACHED


def forget(s: Settings, user: str, *, tenant: str = "", dry_run: bool = False) -> Report:
    """List what holds a user's data, and take it away.

    Args:
        s: the settings.
        user: as events carry it (a hash).
        tenant: only events of this tenant; "" is every one.
        dry_run: only list.

    Raises:
        StoreError: ClickHouse is away; doing it again goes on.
        DatasetError: a version, an anchors file or a record cannot be read or written.
    """
    at = clock.now()
    request = Request(forgotten.who_is(user), tenant, at)
    report = Report(request.who, dry_run, behind=_behind(s))
    with wiring.store(s) as store:
        ids, tasks = _ids(store, request)
        anchored = _anchors(s, ids["inferences"])
        ids["anchors"] |= {id for _, found in anchored.values() for id in found}
        mine = Mine(frozenset().union(*(ids[kind] for kind in forgotten.KINDS)), request.who)
        report.events = {kind: len(ids[kind]) for kind in forgotten.KINDS}
        report.pairs = _pairs(store, ids)
        targets = ids["inferences"] | ids["shadows"] | ids["pairs"] | ids["anchors"]
        report.scores = sum(
            int(store.query("forget_scores", ids=some)[0]["n"]) for some in forgotten.in_chunks(targets)
        )
        touched = forgetting.touched(s.home, mine)
        report.datasets = [
            {"version": one.dataset.version, "task": one.dataset.task, "kind": one.dataset.kind, "rows": one.n}
            for one in touched
        ]
        seen = [*forgetting.erased(s.home, request.who), *(one.dataset.version for one in touched)]
        report.adapters = [
            {"name": one.name, "status": one.status, "dataset": one.dataset}
            for one in forgetting.trained_on(store, seen)
        ]
        files = forgetting.copies(s.home, mine)
        report.copies = [str(file) for file in files]
        report.anchors = {str(path): len(found) for path, found in anchored.values()}
        report.evaluation = _evaluation(s, store, tasks, ids["inferences"])
        if dry_run:
            return report
        _write_record(s.home, request, ids, at)
        forgotten.record(store, request, ids, at)
        forgotten.sweep(store, wiring.cluster(s), at)
        for task in report.pairs:
            forgotten.drop_pairs(store, wiring.cluster(s), task)
            derive_pairs(s, store, task)
        for one, said in zip(touched, report.datasets, strict=True):
            new = forgetting.renew(store, s.home, one.dataset, mine, at)
            said["replaced_by"] = new.version if new else None
        forgetting.remove(files)
        for task, (path, _) in anchored.items():
            anchor_files.without(task, path, ids["inferences"])
        report.judge_cache = _clear_judge_cache(s)
    return report


def sweep(s: Settings, store: Store) -> int:
    """Take away what was read from topics again although its user asked to be forgotten; returns how many events.

    Requests whose record ClickHouse lost come back from ``<home>/forgotten`` first.
    """
    for file in sorted((s.home / "forgotten").glob("*.json")):
        try:
            value = orjson.loads(file.read_bytes())
            request = Request(value["who"], value["tenant"], datetime.fromisoformat(value["until"]))
            ids = {kind: set(some) for kind, some in value["ids"].items()}
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{file}: no record of a deletion request ({error})") from None
        forgotten.record(store, request, ids, request.until)
    return forgotten.sweep(store, wiring.cluster(s), clock.now()).total()


def _ids(store: Store, request: Request) -> tuple[Ids, set[str]]:
    """What is stored of the request now, and what an earlier run put on record: it may have been killed half-way."""
    there = forgotten.found(store, request)
    ids: Ids = {kind: set() for kind in (*forgotten.KINDS, "pairs", "anchors")}
    for known in (there.ids, *(ids for _, ids in forgotten.recorded(store, request.who))):
        for kind, some in known.items():
            ids[kind] |= some
    return ids, there.tasks


def _pairs(store: Store, ids: Ids) -> dict[str, int]:
    """Pairs by task; the ids under which judges were asked of them are added to ``ids``."""
    by_task: dict[str, set[str]] = {}
    for some in forgotten.in_chunks(ids["feedback"] | ids["inferences"] | ids["shadows"]):
        for row in store.query("forget_pairs", ids=some):
            by_task.setdefault(row["task"], set()).add(row["pair_id"])
            ids["pairs"].add(derived_id(0, "pair", row["pair_id"], row["chosen"], row["rejected"]))
    return {task: len(some) for task, some in sorted(by_task.items())}


def _anchors(s: Settings, inference_ids: set[str]) -> dict[str, tuple[Path, list[str]]]:
    """By task: the file, and the ids of its anchors that were drawn from these inferences."""
    found = {}
    for path in sorted((s.config_dir / "anchors").glob("*.jsonl")):
        anchors = anchor_files.read(path.stem, path)
        ids = [one.content_id(path.stem) for one in anchors if one.inference_id in inference_ids]
        if ids:
            found[path.stem] = (path, ids)
    return found


def _evaluation(s: Settings, store: Store, tasks: set[str], inference_ids: set[str]) -> dict[str, int]:
    found = {}
    for task in sorted(tasks):
        files, asked = evaluation_files(s, task), set()
        if not files:
            continue
        for some in forgotten.in_chunks(inference_ids):
            for row in store.query("pair_answers", task=task, ids=some):
                asked.add(question(Asked.model_validate_json(row["request"]).messages or []))
        for file in files:
            if n := len(asked & EvaluationSet.of(file).prompts.keys()):
                found[str(file)] = n
    return found


def _behind(s: Settings) -> int | None:
    from ratchet.consumers.taking import GROUP
    from ratchet.infra.kafka.admin import lag, wait_for_broker

    try:
        wait_for_broker(s.kafka, 2)
        return lag(s.kafka, GROUP)
    except BrokerError:
        return None


def _clear_judge_cache(s: Settings) -> int:
    """Empty it: it has rationales, which may quote, under hashes that tell nobody's from another's."""
    from ratchet.infra.judge_cache import FILE_NAME

    if not (s.home / FILE_NAME).is_file():
        return 0
    cache = wiring.judge_cache(s)
    try:
        return cache.clear()
    finally:
        cache.close()


def _write_record(home: Path, request: Request, ids: Ids, at: datetime) -> None:
    value = {
        "who": request.who,
        "tenant": request.tenant,
        "until": request.until.isoformat(),
        "ids": {kind: sorted(some) for kind, some in ids.items()},
    }
    file = home / "forgotten" / f"{at:%Y%m%dT%H%M%S%f}-{request.who[:12]}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".part")
        scratch.write_bytes(orjson.dumps(value))
        scratch.replace(file)
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}: nothing was deleted") from error

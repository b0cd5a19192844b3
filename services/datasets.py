"""Put together what makes datasets: a task's policy, its frozen prompts, the tokenizer, its own functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ratchet.consumers.rules.sampling import position
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.forgotten import who_is
from ratchet.infra.models.smollm2 import NAME
from ratchet.infra.settings import Settings
from ratchet.schemas.dataset_policy import DatasetPolicy
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.learning import derive_pairs, evaluation_files
from ratchet.trainers.augmenting import Batch
from ratchet.trainers.building import Recipe, build, from_candidates
from ratchet.trainers.dataset import SIDES, Dataset
from ratchet.trainers.evaluation.held_out import EvaluationSet
from ratchet.trainers.files import read_file
from ratchet.trainers.measuring import limits
from ratchet.trainers.rules.augmenting import MOST, mix, shares
from ratchet.trainers.rules.dataset import Candidate, Kind, Row, id_of, question
from ratchet.trainers.rules.formats import FORMATS


def build_dataset(
    s: Settings,
    store: Store,
    task: str,
    kind: Kind = "preference",
    holdout: float | None = None,
    cap: int | None = None,
) -> Dataset:
    """Derive the pairs of a task and make a dataset version of its feedback.

    Args:
        s: the settings; a task that they do not declare has no caps, its events are imports.
        store: ClickHouse.
        task: the task.
        kind: of the rows.
        holdout: the share of conversations to hold out, instead of the policy's.
        cap: rows that one user may decide, instead of the policy's.

    Raises:
        DatasetError: nothing to train on, with the reasons why.
        StoreError: ClickHouse is away.
    """
    _, pairing = derive_pairs(s, store, task, holdout, cap)
    with recipe(s, task, pairing, cap) as made:
        return build(store, s.home, task, clock.now(), kind=kind, recipe=made)


def import_dataset(
    s: Settings,
    store: Store,
    task: str,
    file: Path,
    format_: str,
    *,
    into: Dataset | None = None,
    holdout: float | None = None,
    ignore: frozenset[str] = frozenset(),
) -> tuple[Dataset, list[tuple[int, str]]]:
    """Make a dataset version of a file, or of another version and a file.

    A row's side is drawn by its conversation, or by its prompt where the file names none; what ``into`` holds out
    stays held out.

    Args:
        s: the settings.
        store: ClickHouse, which lists the version.
        task: the task.
        file: ``.jsonl`` or ``.parquet``.
        format_: one of `FORMATS`.
        into: the version to add to.
        holdout: the share to hold out, instead of the policy's.
        ignore: fields of the file that are left out.

    Returns:
        The version, and the lines that were bad.

    Raises:
        DatasetError: the file is not of that format, ``into`` is of another task or kind, or nothing is left.
    """
    kind = FORMATS[format_].kind
    if into is not None and (into.task, into.kind) != (task, kind):
        raise DatasetError(
            f"dataset {into.version} has {into.kind} rows of task {into.task!r};"
            f" {format_} gives {kind} rows, wanted of {task!r}"
        )
    found = read_file(file, format_, ignore)
    declared = s.tasks.get(task)
    pairing = declared.pairing if declared else PairingPolicy()
    share = pairing.holdout if holdout is None else holdout
    pairing = pairing.model_copy(update={"holdout": share, "holdout_by": "conversation"})
    candidates = [*_rows_of(into), *(_candidate(row, user, share) for row, user in found.rows)]
    dropped = Counter({"bad_line": len(found.bad)})
    source = {"file": file.name, "format": format_, "rows": len(found.rows)}
    with recipe(s, task, pairing) as made:
        dataset = from_candidates(
            store, s.home, task, clock.now(), kind, candidates, dropped, made, into, imported=source
        )
    return dataset, found.bad


def mix_dataset(s: Settings, store: Store, parent: Dataset, batches: Sequence[Batch], share: float) -> Dataset:
    """Make a version of another one and of accepted proposals, which go through the same filters.

    Args:
        s: the settings.
        store: ClickHouse, which lists the version.
        parent: the version to add to.
        batches: reviewed proposals of the same task and kind.
        share: the most of the training rows that may be synthetic.

    Raises:
        DatasetError: a batch of another task or kind, nothing accepted, no room, or too many synthetic rows are left
            after the filters.
    """
    for batch in batches:
        if (batch.task, batch.kind) != (parent.task, parent.kind):
            raise DatasetError(
                f"batch {batch.name} has {batch.kind} rows of task {batch.task!r}; dataset {parent.version} is"
                f" {parent.kind} of {parent.task!r}"
            )
    accepted = [row for batch in batches for row in batch.rows("accepted")]
    known = {id_of(row) for row in parent.rows("train")}
    chosen = mix(parent.rows("train"), [row for row in accepted if id_of(row) not in known], share)
    if not chosen:
        raise DatasetError(
            f"dataset {parent.version}: {len(accepted)} accepted rows and no room for one that is new:"
            f" at most {share:.0%} of the training rows may be synthetic"
        )
    new = [
        Candidate(row, row.get("conversation_id") or question(row["prompt"]), row["source"], False) for row in chosen
    ]
    declared = s.tasks.get(parent.task)
    pairing = declared.pairing if declared else PairingPolicy()
    facts = {"augmented": {"batches": [batch.name for batch in batches], "accepted": len(accepted), "share": share}}
    with recipe(s, parent.task, pairing) as made:
        mixed = from_candidates(
            store,
            s.home,
            parent.task,
            clock.now(),
            parent.kind,
            [*_rows_of(parent), *new],
            Counter(),
            made,
            parent,
            **facts,
        )
    synthetic, of = shares(mixed.rows("train"))
    if synthetic > MOST * of:
        raise DatasetError(
            f"dataset {mixed.version}: {synthetic} of {of} training rows are synthetic after the filters;"
            f" allowed: {MOST:.0%}: mix in fewer with --share"
        )
    return mixed


@contextmanager
def recipe(s: Settings, task: str, pairing: PairingPolicy, cap: int | None = None) -> Iterator[Recipe]:
    """Everything that decides on a task's rows, ready to measure.

    Raises:
        DatasetError: the evaluation file, the tokenizer or a function of the task's own cannot be used.
    """
    declared = s.tasks.get(task)
    policy = declared.dataset if declared else DatasetPolicy().uncapped()
    if cap is not None:
        policy = policy.model_copy(update={"max_per_user": cap})
    tokenizer = _tokenizer(s) if declared else None
    longest = (declared or TaskPolicy()).training.max_length
    with limits(policy, task, s.config_dir, tokenizer, longest) as measured:
        yield Recipe(policy, pairing, EvaluationSet.of(*evaluation_files(s, task)), measured)


def _tokenizer(s: Settings) -> Path | None:
    """The base model's folder, where it is on this machine already; to build a dataset it is not unpacked."""
    folder = s.base_model_path or s.home / "models" / NAME
    return folder if (folder / "config.json").is_file() else None


def _rows_of(dataset: Dataset | None) -> list[Candidate]:
    if dataset is None:
        return []
    found = []
    for side in SIDES:
        for row in dataset.rows(side):
            conversation = row.get("conversation_id") or question(row["prompt"])
            found.append(Candidate(row, conversation, row.get("source", ""), side == "holdout"))
    return found


def _candidate(row: Row, user: str, holdout: float) -> Candidate:
    conversation = row["conversation_id"] or question(row["prompt"])
    held = position(conversation, "split") < holdout
    # who it is of, so that a deletion request finds it
    known = {"conversation_id": conversation} | ({"who": who_is(user)} if user else {})
    return Candidate(row | known, conversation, row["source"], held, user)

"""From stored feedback to a dataset version: candidates of the wanted kind, filtered, on two sides, written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.consumers.rules.votes import Answer
from ratchet.schemas.dataset_policy import DatasetPolicy
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.trainers.dataset import Dataset, latest, make
from ratchet.trainers.evaluation.held_out import EvaluationSet
from ratchet.trainers.rules import dataset as rules
from ratchet.trainers.rules.dataset import Candidate, Kind
from ratchet.trainers.rules.labels import Opinion, good_alone, labelled
from ratchet.trainers.rules.selecting import Limits, Selection, select

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides, beside the feedback itself.

    Args:
        policy: the filters.
        pairing: how the held-out side was chosen, before pairing.
        evaluation: the task's frozen prompts, kept out of training.
        limits: what rows are measured by beside the policy.
    """

    policy: DatasetPolicy = field(default_factory=DatasetPolicy)
    pairing: PairingPolicy = field(default_factory=PairingPolicy)
    evaluation: EvaluationSet = field(default_factory=EvaluationSet)
    limits: Limits = field(default_factory=Limits)


def build(
    store: Store, home: Path, task: str, now: datetime, *, kind: Kind = "preference", recipe: Recipe | None = None
) -> Dataset:
    """Make a dataset version of all stored feedback of a task; the same feedback gives the same version.

    ``preference``: the pairs. ``sft``: the pairs' chosen answers (corrections among them) and the answers with
    thumbs up. ``kto``: the answers with thumbs, outcomes or clear ratings that no pair was made of.

    Args:
        store: ClickHouse, with the pairs derived.
        home: Ratchet's home.
        task: the task's name.
        now: when this is done, for the manifest.
        kind: of the rows.
        recipe: filters, the split, the frozen evaluation prompts.

    Raises:
        DatasetError: there is no row to train on, or the folder cannot be written.
    """
    recipe = recipe or Recipe()
    dropped: Counter[str] = Counter()
    candidates: list[Candidate] = []
    if kind != "kto":
        candidates, dropped = _pairs(store, task)
    if kind != "preference":
        opinions, left_out = _opinions(store, task, recipe, paired_too=kind == "sft")
        if kind == "kto":
            candidates, dropped = opinions, left_out
        else:
            good = [good_alone(one) for one in opinions if one.row["label"] and one.source == "thumb"]
            candidates = [*(rules.chosen_alone(one) for one in candidates), *good]
    return from_candidates(store, home, task, now, kind, candidates, dropped, recipe, latest(home, task, kind))


def from_candidates(
    store: Store,
    home: Path,
    task: str,
    now: datetime,
    kind: Kind,
    candidates: Iterable[Candidate],
    dropped: Counter[str],
    recipe: Recipe,
    parent: Dataset | None,
    **facts: Any,
) -> Dataset:
    """Filter candidates and write the version; ``dropped`` are those that were none, by reason.

    Raises:
        DatasetError: nothing to train on is left, with the reasons.
    """
    selected = select(candidates, recipe.evaluation.prompts, recipe.policy, recipe.limits)
    reasons = {reason: n for reason, n in sorted((dropped + Counter(selected.dropped)).items()) if n}
    if not selected.train:
        what = "pair" if kind == "preference" else "example"
        raise DatasetError(f"task {task!r} has no {what} to train on; left out, by reason: {reasons or 'nothing'}")
    sides = {
        "train": [one.row for one in selected.train],
        "holdout": [one.row for one in selected.holdout],
    }
    return make(
        store,
        home,
        task,
        kind,
        sides,
        now,
        {
            "parent": parent.version if parent else None,
            "dropped": reasons,
            "conflicts": _conflicts(selected, reasons),
            "steps": [asdict(step) for step in selected.steps],
            "filters": _filters(recipe),
            **facts,
        },
    )


def _conflicts(selected: Selection, reasons: dict[str, int]) -> dict[str, int]:
    """Rows on which people disagreed: the majority decided, or nobody did and the row is out."""
    rows: Sequence[Candidate] = (*selected.train, *selected.holdout)
    return {
        "outvoted": sum(one.row["confidence"] < 1 for one in rows),
        "undecided": reasons.get("tie", 0),
        "contradicted": reasons.get("contradiction", 0),
    }


def _filters(recipe: Recipe) -> dict[str, Any]:
    pairing, measured = recipe.pairing, recipe.limits.tokens is not None
    return {
        "split_by": pairing.holdout_by,
        "holdout": pairing.holdout,
        "holdout_since": pairing.holdout_since.isoformat() if pairing.holdout_since else None,
        "evaluation_prompts": len(recipe.evaluation.prompts),
        "evaluation_sha256": recipe.evaluation.sha256,
        # None: there was no tokenizer to measure with; the trainer leaves out what does not fit
        "max_tokens": recipe.limits.max_tokens if measured else None,
        "policy": recipe.policy.model_dump(mode="json", exclude_defaults=True),
    }


def _pairs(store: Store, task: str) -> tuple[list[Candidate], Counter[str]]:
    dropped = Counter({row["reason"] or "unknown": int(row["n"]) for row in store.query("pairs_dropped", task=task)})
    decoded = [rules.decode(pair) for pair in store.query("pairs_of_task", task=task)]
    dropped["not_chat_messages"] += sum(one is None for one in decoded)
    return [one for one in decoded if one is not None], dropped


def _opinions(store: Store, task: str, recipe: Recipe, *, paired_too: bool) -> tuple[list[Candidate], Counter[str]]:
    """Answers that people labelled; those that a pair was made of only with ``paired_too``."""
    opinions, paired = [], set()
    for row in store.query("label_votes", task=task):
        one = Opinion(str(row["id"]), row["at_us"], row["kind"], row["number"], row["user"], str(row["inference_id"]))
        opinions.append(one)
        if row["paired"]:
            paired.add(one.inference_id)
    found = store.query("label_answers", task=task)
    answers = {str(row["id"]): Answer(**(row | {"id": str(row["id"])})) for row in found}
    made, left_out = labelled(opinions, answers, recipe.pairing)
    if paired_too:
        return made, left_out
    unpaired = [one for one in made if one.id.removeprefix("label:") not in paired]
    left_out["paired"] += len(made) - len(unpaired)
    return unpaired, left_out

"""Human labels out of a file: JSONL or a JSON array, a record an answer, each wrong one named by its line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, StrictBool, ValidationError, model_validator

from ratchet.consumers.rules.standing import Labelled
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Closed, Instant, Score, Share, Text64
from ratchet.schemas.explain import explain
from ratchet.schemas.ids import EventId, derived_id
from ratchet.services.importing.jsonl import MOST_BAD
from ratchet.services.importing.records import read_records

RUBRIC = "label"
RUBRIC_HASH = hashlib.sha256(b"an expert's label, 0 bad to 1 good").hexdigest()[:16]
SHOWN = 20


class Label(Closed):
    """One record: a person's word on an answer, with the judge's score or the id to find it by.

    ``label`` and ``score`` are 0 (bad) to 1 (good); true and false are 1 and 0. A record with a score and no label
    is an answer that was judged and not labelled: traffic, over which rates and means are corrected.
    """

    inference_id: EventId | None = None
    label: StrictBool | Share | None = None
    score: Share | None = None
    inclusion_probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    at: Instant | None = None
    who: Text64 | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Label:
        if self.score is None and (self.inference_id is None or self.label is None):
            raise ValueError("a record has a score, or an inference_id with a label")
        return self


@dataclass
class LabelFile:
    """The records of a file that can be used, and what is wrong with the others."""

    records: list[Label] = field(default_factory=list)
    bad: int = 0
    examples: list[str] = field(default_factory=list)
    """The first bad records, each ``place: reason``."""

    @property
    def has_scores(self) -> bool:
        """Whether the file brings the judge's scores along."""
        return bool(self.records) and self.records[0].score is not None

    def refuse(self, place: str, problem: str) -> None:
        """Count a record that cannot be used."""
        self.bad += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{place}: {problem}")


def read_labels(path: Path) -> LabelFile:
    """Read a file of labels.

    Raises:
        DatasetError: the file cannot be read, has no record, mixes records with and without scores, or more than 5%
            of its records are bad.
    """
    found, total, places = LabelFile(), 0, dict[bool, str]()
    for record in read_records(path, None):
        total += 1
        if record.problem is not None:
            found.refuse(record.place, record.problem)
            continue
        try:
            label = Label.model_validate(record.value)
        except ValidationError as error:
            found.refuse(record.place, explain(error))
            continue
        places.setdefault(label.score is not None, record.place)
        found.records.append(label)
    if not total:
        raise DatasetError(f"{path}: no records in it")
    if found.bad > MOST_BAD * total:
        shown = "; ".join(found.examples[:5])
        raise DatasetError(f"{path}: {found.bad} of {total} records are bad, over {MOST_BAD:.0%}: {shown}")
    if len(places) == 2:
        raise DatasetError(
            f"{path}: {places[True]} has a score and {places[False]} has none; allowed: in every record or in none"
        )
    return found


def labelled(records: Iterable[Label]) -> list[Labelled]:
    """The records with both words, as a calibration takes them."""
    return [
        Labelled(float(one.label), one.score, 1 / one.inclusion_probability, one.at)
        for one in records
        if one.label is not None and one.score is not None
    ]


def as_scores(task: str, records: Sequence[Label], adapters: dict[str, str], now: datetime) -> list[Score]:
    """Labels as events that count from now on, in every calibration of every judge that scored those answers.

    Args:
        task: whose answers they are.
        records: with an ``inference_id`` and a label.
        adapters: who gave each answer, by inference id.
        now: when labels without a time were given.
    """
    return [
        Score(
            id=derived_id(int(at.timestamp() * 1000), "label", task, one.inference_id, who),
            at=at,
            task=task,
            adapter=adapters[one.inference_id],
            target_id=one.inference_id,
            target="inference",
            kind="label",
            judge=who,
            rubric=RUBRIC,
            rubric_hash=RUBRIC_HASH,
            score=float(one.label),
        )
        for one in records
        if one.inference_id is not None and one.label is not None
        for at, who in [(one.at or now, one.who or "expert")]
    ]

"""Judges against people, from what ClickHouse has: each judge's calibration, and its figures without its errors.

Nothing is stored: scores and labels are, and a calibration is a question to them (docs/decisions/025).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ratchet.consumers.rules.calibration import (
    NOTHING,
    Estimate,
    NoCorrection,
    Sums,
    corrected,
    mean,
    prediction_powered,
    rate,
)
from ratchet.consumers.rules.standing import Calibration, Cell, Standing, calibrate, standing
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

EPOCH_YEAR = 1970
"""What ClickHouse says where there is no instant."""


class Questions(Protocol):
    """The part of the store that is needed here."""

    def query(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """Rows of a named question; StoreError when ClickHouse is away."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """What a judge said of the traffic since an instant: of all answers, and of those without a label.

    ``positive`` are indicators of a good score (0.5 or more) over all; ``scores`` the scores over all; ``unlabelled``
    the scores of the answers that nobody labelled.
    """

    positive: Sums = NOTHING
    scores: Sums = NOTHING
    unlabelled: Sums = NOTHING


@dataclass(frozen=True, slots=True)
class Corrected:
    """A judge's figures over the traffic, as it says them and without its errors; None and ``why`` where not to be had.

    ``naive`` is the share of good answers by the judge, ``rate`` that share without its errors (Rogan–Gladen).
    ``naive_mean`` is the mean score; ``mean`` the prediction-powered mean label, ``tuned`` the same with the power
    ``power`` that makes its variance least (PPI++).
    """

    naive: Estimate | None = None
    rate: Estimate | None = None
    why_no_rate: str = ""
    naive_mean: Estimate | None = None
    mean: Estimate | None = None
    tuned: Estimate | None = None
    power: float | None = None
    why_no_mean: str = ""

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class InForce:
    """The judge whose word counts on a task; '' where nothing was judged. ``calibration`` is None without labels."""

    judge: str
    rubric_hash: str
    calibration: Calibration | None
    standing: Standing


def measured(store: Questions, task: str, policy: TaskPolicy, now: datetime) -> list[Calibration]:
    """Calibrate every judge of a task, under each wording of its rubrics, by the labels that still count.

    People's word on an answer is an expert's label, else the mean of its thumbs, outcomes, ratings and corrections (a
    correction says 0), at the threshold 0.5; exactly 0.5 is no word.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    counts = timedelta(days=policy.calibration.label_days)
    rows = store.query("judge_labels", task=task, since=instant(now - counts), min_labels=policy.judge.min_labels)
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["judge"], row["rubric"], row["rubric_hash"]), []).append(row)
    calibrations = []
    for of, cells in found.items():
        nth_at = max((cell["nth_at"] for cell in cells if cell["nth_at"].year > EPOCH_YEAR), default=None)
        expired = sum(int(cell["expired_n"]) for cell in cells)
        kept = [_cell(cell) for cell in cells if cell["n"]]
        expires_at = nth_at + counts if nth_at else None
        calibrations.append(calibrate(task, *of, kept, expired=expired, expires_at=expires_at))
    return calibrations


def in_force(store: Questions, task: str, policy: TaskPolicy, now: datetime) -> InForce:
    """The judge whose word counts on a task now, and whether it may gate and page: ask this before either.

    It is the one that scored the newest answers, by the policy's rubric as it is worded now: another judge, or other
    words, are another instrument, which needs labels of its own however well the one before stood.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    prefix = f"{policy.judge.combine}:" if len(policy.judge.judges) > 1 else ""
    found = store.query("judge_in_force", task=task, kind="pointwise", rubric=policy.judge.rubric, prefix=prefix)
    if not found:
        return InForce("", "", None, standing(None, policy.judge, now))
    of = found[0]["judge"], policy.judge.rubric, found[0]["rubric_hash"]
    own = next(
        (one for one in measured(store, task, policy, now) if (one.judge, one.rubric, one.rubric_hash) == of), None
    )
    return InForce(of[0], of[2], own, standing(own, policy.judge, now))


def comparing(store: Questions, task: str, policy: TaskPolicy, now: datetime) -> InForce:
    """The judge whose comparisons of two answers count on a task now.

    People label answers, not comparisons: its word decides where it is also the judge that those labels bear out.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    pairwise = policy.pairwise
    prefix = f"{pairwise.combine}:" if len(pairwise.judges) > 1 else ""
    found = store.query("judge_in_force", task=task, kind="pairwise", rubric=pairwise.rubric, prefix=prefix)
    if not found:
        return InForce("", "", None, standing(None, policy.judge, now))
    name, rubric_hash = found[0]["judge"], found[0]["rubric_hash"]
    labelled = in_force(store, task, policy, now)
    if labelled.judge not in ("", name):
        not_it = Standing(False, f"{name} is not the judge that people's labels are about")
        return InForce(name, rubric_hash, None, not_it)
    return InForce(name, rubric_hash, labelled.calibration, labelled.standing)


def scored(
    store: Questions, task: str, policy: TaskPolicy, since: datetime, now: datetime
) -> dict[tuple[str, str, str], Scored]:
    """What the judges said of a task's traffic since an instant, by judge, rubric and its hash.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    labelled_since = now - timedelta(days=policy.calibration.label_days)
    rows = store.query("judge_traffic", task=task, since=instant(since), labelled_since=instant(labelled_since))
    found: dict[tuple[str, str, str], Scored] = {}
    for row in rows:
        key = row["judge"], row["rubric"], row["rubric_hash"]
        before = found.get(key, Scored())
        scores = Sums(**_sums(row, "n", "w", "ww", "wf", "wwf", "wwff"))
        positive = Sums(n=scores.n, w=scores.w, ww=scores.ww, wf=row["good_w"], wwf=row["good_ww"], wwff=row["good_ww"])
        found[key] = Scored(
            before.positive + positive,
            before.scores + scores,
            before.unlabelled if row["labelled"] else before.unlabelled + scores,
        )
    return found


def correct(calibration: Calibration, traffic: Scored) -> Corrected:
    """A judge's figures over the traffic without the errors that its calibration shows."""
    said: dict[str, Any] = {"naive": rate(traffic.positive), "naive_mean": mean(traffic.scores)}
    try:
        said["rate"] = corrected(traffic.positive, calibration.hits, calibration.rejections)
    except NoCorrection as error:
        said["why_no_rate"] = str(error)
    try:
        said["mean"], _ = prediction_powered(calibration.labelled, traffic.unlabelled)
        said["tuned"], said["power"] = prediction_powered(calibration.labelled, traffic.unlabelled, None)
    except NoCorrection as error:
        said["why_no_mean"] = str(error)
    return Corrected(**said)


def _cell(row: dict[str, Any]) -> Cell:
    sums = Sums(**_sums(row, *Sums.__slots__))
    good = None if row["people_good"] is None else bool(row["people_good"])
    return Cell(int(row["judge_grade"]), int(row["people_grade"]), bool(row["judge_good"]), good, sums)


def _sums(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: int(row["n"]) if name == "n" else float(row[f"sum_{name}"]) for name in names}

"""How a judge stands on a task: its calibration by human labels, and whether its word may gate or page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from ratchet.consumers.rules.calibration import Estimate, Sums, kappa, rate
from ratchet.schemas.judging import JudgePolicy

GRADES = 5
"""Scores and labels from 0 to 1 are told apart in so many grades where agreement is measured on an ordinal scale."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The labelled answers to which a judge gave one grade and people another (both 0 to 4).

    ``judge_good``: the score is 0.5 or more. ``people_good``: the label is above 0.5; None where it is just 0.5,
    which is no word. ``sums``: over label ``y`` and score ``f``.
    """

    judge_grade: int
    people_grade: int
    judge_good: bool
    people_good: bool | None
    sums: Sums


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer with people's label and a judge's score, both 0–1, and how many answers it stands for."""

    label: float
    score: float
    weight: float = 1.0
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A judge against people, bound to the judge, the rubric's hash and the task.

    ``n`` labels that say good or bad; ``undecided`` say neither, and count only where the scale is ordinal.
    ``expired`` are older than labels count. ``expires_at`` is when fewer labels than the policy asks for will be
    left; None where there are fewer already. Figures are None where nothing, or one
    class only, was labelled.
    """

    task: str
    judge: str
    rubric: str
    rubric_hash: str
    n: int
    undecided: int
    expired: int
    expires_at: datetime | None
    both_good: int
    judge_only_good: int
    people_only_good: int
    both_bad: int
    agreement: Estimate | None
    kappa: Estimate | None
    weighted_kappa: Estimate | None
    sensitivity: Estimate | None
    specificity: Estimate | None
    labelled: Sums
    hits: Sums
    rejections: Sums

    def as_json(self) -> dict[str, Any]:
        """Without the sums that only further computing needs."""
        value = asdict(self)
        for name in ("labelled", "hits", "rejections"):
            del value[name]
        return value | {"expires_at": self.expires_at.isoformat() if self.expires_at else None}

    def __str__(self) -> str:
        """One line to stand beside a judged figure."""
        if self.agreement is None:
            return f"{self.judge} ({self.rubric}): n = 0 labels"
        agreement = f"agreement {self.agreement.value:.0%} [{self.agreement.low:.0%}, {self.agreement.high:.0%}]"
        of_kappa = f", κ {self.kappa.value:.2f}" if self.kappa else ""
        return f"{self.judge} ({self.rubric}): {agreement}{of_kappa}, n = {self.n} labels"


@dataclass(frozen=True, slots=True)
class Standing:
    """``trusted``: the judge may gate and page. Otherwise it is advisory, for ``reason``."""

    trusted: bool
    reason: str

    def __str__(self) -> str:
        """As tables show it."""
        return f"trusted: {self.reason}" if self.trusted else f"advisory: {self.reason}"


def tally(items: Iterable[Labelled]) -> list[Cell]:
    """Sort labelled answers into cells, as the question ``judge_labels`` does in ClickHouse.

    Raises:
        ValueError: a label or score outside 0–1 (NaN is), or a weight that is not above 0.
    """
    cells: dict[tuple[int, int, bool, bool | None], list[tuple[float, float, float]]] = {}
    for item in items:
        for name, value in (("label", item.label), ("score", item.score)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value}; allowed: 0 to 1")
        good = None if item.label == 0.5 else item.label > 0.5
        key = (grade(item.score), grade(item.label), item.score >= 0.5, good)
        cells.setdefault(key, []).append((item.label, item.score, item.weight))
    return [Cell(*key, Sums.of(values)) for key, values in cells.items()]


def grade(value: float) -> int:
    """The grade, 0 to 4, of a score or label between 0 and 1."""
    return round(value * (GRADES - 1))


def calibrate(
    task: str,
    judge: str,
    rubric: str,
    rubric_hash: str,
    cells: Sequence[Cell],
    *,
    expired: int = 0,
    expires_at: datetime | None = None,
) -> Calibration:
    """Measure a judge against people.

    Args:
        task: what was labelled …
        judge: … and scored by this judge …
        rubric: … under this rubric …
        rubric_hash: … in this wording.
        cells: from `tally` or ClickHouse.
        expired: labels that are too old to be among them.
        expires_at: when fewer labels than the policy asks for are left.

    Returns:
        Agreement, κ and counts as labelled; sensitivity and specificity weighted by inverse inclusion probability.
    """
    counts = {(j, p): 0 for j in (True, False) for p in (True, False)}
    hits, rejections, labelled = Sums(), Sums(), Sums()
    table = [[0] * GRADES for _ in range(GRADES)]
    undecided = 0
    for cell in cells:
        labelled += cell.sums
        table[cell.judge_grade][cell.people_grade] += cell.sums.n
        if cell.people_good is None:
            undecided += cell.sums.n
            continue
        counts[cell.judge_good, cell.people_good] += cell.sums.n
        if cell.people_good:
            hits += indicator(cell.sums, cell.judge_good)
        else:
            rejections += indicator(cell.sums, not cell.judge_good)
    n = sum(counts.values())
    agree = counts[True, True] + counts[False, False]
    square = [[counts[j, p] for p in (True, False)] for j in (True, False)]
    levels = {p for row in table for p, cell in enumerate(row) if cell}
    return Calibration(
        task=task,
        judge=judge,
        rubric=rubric,
        rubric_hash=rubric_hash,
        n=n,
        undecided=undecided,
        expired=expired,
        expires_at=expires_at,
        both_good=counts[True, True],
        judge_only_good=counts[True, False],
        people_only_good=counts[False, True],
        both_bad=counts[False, False],
        agreement=rate(Sums(n=n, w=n, ww=n, wf=agree, wwf=agree, wwff=agree)),
        kappa=kappa(square),
        weighted_kappa=kappa(table, ordinal=True) if len(levels) > 2 else None,
        sensitivity=rate(hits),
        specificity=rate(rejections),
        labelled=labelled,
        hits=hits,
        rejections=rejections,
    )


def indicator(sums: Sums, yes: bool) -> Sums:
    """The same observations with 1 (``yes``) or 0 for each value."""
    one = 1.0 if yes else 0.0
    return Sums(n=sums.n, w=sums.w, ww=sums.ww, wf=one * sums.w, wwf=one * sums.ww, wwff=one * sums.ww)


def standing(calibration: Calibration | None, policy: JudgePolicy, now: datetime) -> Standing:
    """Say whether a judge's word may gate a rollout or page a person.

    Advisory is a judge without labels of what it scored, with fewer than ``min_labels`` (or whose labels have
    expired), with labels of one class only, no better than chance (κ), or whose agreement is not shown to be above
    ``agreement_floor``: the interval's lower bound counts, so a lucky few labels do not suffice.
    """
    if calibration is None or calibration.n + calibration.expired == 0:
        return Standing(False, f"no human label of an answer that it scored (n = 0 of {policy.min_labels})")
    n = calibration.n
    expires = calibration.expires_at
    if expires is not None and now >= expires:
        return Standing(False, f"its calibration expired on {expires:%Y-%m-%d}; label answers anew")
    if n < policy.min_labels:
        old = f", {calibration.expired} more have expired" if calibration.expired else ""
        return Standing(False, f"{n} of {policy.min_labels} labels{old}")
    agreement, chance = calibration.agreement, calibration.kappa
    if calibration.sensitivity is None or calibration.specificity is None or agreement is None:
        missing = "good" if calibration.sensitivity is None else "bad"
        return Standing(False, f"its {n} labels have no {missing} answer, so nobody knows if it would see one")
    if chance is None or chance.low <= 0:
        shown = "undefined" if chance is None else f"{chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]"
        return Standing(False, f"not shown to be better than chance: κ {shown}, n = {n}")
    figures = f"agreement {agreement.value:.0%} [{agreement.low:.0%}, {agreement.high:.0%}], n = {n}"
    if agreement.low < policy.agreement_floor:
        return Standing(False, f"{figures}: not shown to be above the floor of {policy.agreement_floor:.0%}")
    until = f", until {expires:%Y-%m-%d}" if expires else ""
    return Standing(True, f"{figures}{until}")


def expiry(times: Sequence[datetime], min_labels: int, counts: timedelta) -> datetime | None:
    """When labels begin to be too few: when the ``min_labels``-th newest no longer counts.

    Args:
        times: when each label that says good or bad was given.
        min_labels: below which a judge is advisory.
        counts: for how long a label counts.

    Returns:
        None where they are too few already.
    """
    return sorted(times, reverse=True)[min_labels - 1] + counts if min_labels <= len(times) else None

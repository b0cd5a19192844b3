"""From replies to a word: samples averaged, several judges and several criteria combined, and how sure it is.

Scores lie between 0 (grade 1) and 1 (grade 5). Combined words cost nothing themselves: what they
are made of carries its own cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import sqrt
from statistics import fmean, stdev
from typing import Literal

from ratchet.consumers.rules.judging import HIGHEST, LOWEST, Judgement, read_reply
from ratchet.schemas.judging import CASCADE, PANEL

ASKED_AGAIN = "[asked again later] "
"""What an abstention's reason begins with where what kept the judge from answering goes by."""
AGAIN_AFTER = timedelta(hours=1)
"""An abstention of that kind is asked again so long after it, …"""
AGAIN_FOR = timedelta(days=2)
"""… until the answer is so old: past a day's budget, and bounded."""
Basis = Literal["probabilities", "samples", "digit", "combined"]


@dataclass(frozen=True, slots=True)
class Grade:
    """What one judge (or several together) says by one criterion; without a judgement it abstains, and says why.

    ``judge`` and ``rubric`` are as scores name them. ``cost_usd`` is None where it is not known.
    """

    judge: str
    rubric: str
    judgement: Judgement | None
    why: str = ""
    basis: Basis | None = None
    spread: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    cached: bool = False
    rejected: bool = False
    passing: bool = False
    """It abstains for a reason that goes by: a spent budget, an endpoint that is away."""


def spread(distribution: Mapping[str, float] | None) -> float | None:
    """Standard deviation of the score (0–1) by a distribution over the grades "1" to "5"; None without one."""
    if distribution is None:
        return None
    mean = sum(int(grade) * share for grade, share in distribution.items())
    variance = sum((int(grade) - mean) ** 2 * share for grade, share in distribution.items())
    return min(0.5, sqrt(variance) / (HIGHEST - LOWEST))


def confidence(grade: Grade) -> float:
    """How sure a grade is, 0–1: 1 − 2 × its spread (0.5 is the widest); 0 where it abstains or has no spread."""
    return 0.0 if grade.judgement is None or grade.spread is None else 1 - 2 * grade.spread


def from_samples(texts: Sequence[str]) -> Judgement | None:
    """Average repeated replies; the shares of their grades are the distribution.

    Returns:
        None where less than half of the replies have a score. The rationale is of the reply nearest the mean.
    """
    read = [judgement for text in texts if (judgement := read_reply(text, []))]
    if not read or 2 * len(read) < len(texts):
        return None
    mean = fmean(one.score for one in read)
    counted = Counter(str(round(LOWEST + one.score * (HIGHEST - LOWEST))) for one in read)
    nearest = min(read, key=lambda one: abs(one.score - mean))
    return Judgement(mean, {grade: counted[grade] / len(read) for grade in "12345"}, nearest.rationale)


def panel_id(judges: Sequence[str]) -> str:
    """The judge id of a panel's word, whatever the order of its judges."""
    return PANEL + "+".join(sorted(judges))


def cascade_id(judges: Sequence[str]) -> str:
    """The judge id of a cascade's word."""
    return CASCADE + ">".join(judges)


def panel(grades: Sequence[Grade], quorum: int | None) -> Grade:
    """The mean of a panel's judges, with the standard deviation between them as its spread.

    Args:
        grades: a grade of each judge by the same criterion, at least two.
        quorum: how many must have scored; None: all.
    """
    names = panel_id([grade.judge for grade in grades])
    scored = [(grade.judge, grade.judgement) for grade in grades if grade.judgement]
    silent = [f"{grade.judge} abstained ({grade.why})" for grade in grades if not grade.judgement]
    if len(scored) < max(2, len(grades) if quorum is None else quorum):
        return _combined(names, grades[0].rubric, None, why="; ".join(silent), passing=_any_passing(grades))
    scores = [judgement.score for _, judgement in scored]
    told = [judgement.distribution for _, judgement in scored if judgement.distribution]
    mixed = (
        {grade: fmean(one.get(grade, 0.0) for one in told) for grade in "12345"} if len(told) == len(scored) else None
    )
    words = "; ".join([*(f"{name}: {judgement.score:.2f}" for name, judgement in scored), *silent])
    judgement = Judgement(fmean(scores), mixed, words[:300])
    return _combined(names, grades[0].rubric, judgement, spread=stdev(scores))


def cascade(judges: Sequence[str], asked: Sequence[Grade]) -> Grade:
    """A cascade's word: the last judge's that was asked, or that of the last one that did not abstain.

    Args:
        judges: all of its judges, in order.
        asked: the grades of those that were asked, in order.
    """
    word = next((grade for grade in reversed(asked) if grade.judgement), asked[-1])
    return _combined(
        cascade_id(judges), word.rubric, word.judgement, spread=word.spread, why=word.why, passing=_any_passing(asked)
    )


def overall(grades: Sequence[Grade], rubric: str) -> Grade:
    """The mean over a rubric's criteria, of one judge's grades; it abstains where one of them does."""
    silent = [f"{grade.rubric}: {grade.why}" for grade in grades if not grade.judgement]
    scores = [grade.judgement.score for grade in grades if grade.judgement]
    mean = None if silent else Judgement(fmean(scores), None, "")
    return _combined(grades[0].judge, rubric, mean, why="; ".join(silent), passing=_any_passing(grades))


def _any_passing(grades: Sequence[Grade]) -> bool:
    return any(grade.passing for grade in grades)


def _combined(
    judge: str,
    rubric: str,
    judgement: Judgement | None,
    *,
    spread: float | None = None,
    why: str = "",
    passing: bool = False,
) -> Grade:
    passing = passing and judgement is None
    return Grade(judge, rubric, judgement, why, "combined", spread, cost_usd=0.0, passing=passing)

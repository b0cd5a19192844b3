"""What a check says of an answer: passed, failed, or that it cannot say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's verdict with its reason for a person.

    ``score`` is from 0 to 1 and goes with pass and fail; an abstention has none: it is never 0.
    """

    score: float | None
    verdict: Literal["pass", "fail", "abstain"]
    reason: str


def verdict(passed: bool, reason: str) -> CheckResult:
    """Passed with score 1, or failed with score 0."""
    return CheckResult(1.0 if passed else 0.0, "pass" if passed else "fail", reason[:REASON_CHARS])


def graded(score: float, threshold: float, reason: str) -> CheckResult:
    """A score from 0 to 1 that passes from ``threshold`` on."""
    return CheckResult(score, "pass" if score >= threshold else "fail", reason[:REASON_CHARS])


def abstain(reason: str) -> CheckResult:
    """The check applies and cannot say: no score."""
    return CheckResult(None, "abstain", reason[:REASON_CHARS])


def read_returned(value: object, threshold: float) -> CheckResult:
    """Read what a task's own function returned.

    Args:
        value: a bool, a number from 0 to 1, or ``(one of these, reason)``; anything else, NaN included, abstains.
        threshold: from which score on the answer passes.
    """
    said, reason = value, ""
    if isinstance(value, tuple | list) and len(value) == 2:
        said, reason = value
    if not isinstance(said, bool | int | float) or not isinstance(reason, str):
        return abstain(f"returned {_short(value)}; allowed: a bool, a number from 0 to 1, or (one of these, reason)")
    if not 0 <= said <= 1 or math.isnan(said):
        return abstain(f"returned {_short(said)}; allowed: from 0 to 1")
    score = float(said)
    return graded(score, threshold, reason or f"returned {said!r}")


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, bool | float | str | type(None)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."

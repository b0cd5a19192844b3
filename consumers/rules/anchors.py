"""Frozen answers that a judge scores again and again: did the judge move, or what it judges?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, model_validator

from ratchet.schemas.calibration_policy import CalibrationPolicy
from ratchet.schemas.events import Closed, Instant, Share
from ratchet.schemas.ids import BASE, AdapterName, EventId, TaskName, derived_id
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rows import canonical

KIND = "judge_drift"
"""Of the alert; while one is open the monitor silences the task's quality alert."""
Verdict = Literal["drifted", "steady", "between", "too few"]


class Anchor(Closed):
    """One frozen answer, a line of the file.

    ``id`` is made of the content, so scores are only ever compared on the very same content.
    """

    id: EventId | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[str] | None = None
    answer: str | list[dict[str, Any]] = Field(description="the text, or tool calls", min_length=1)
    label: Share | None = Field(None, description="people's word on it, 0 bad to 1 good")
    adapter: AdapterName = Field(BASE, description="who answered")
    frozen_at: Instant | None = None
    inference_id: EventId | None = Field(None, description="where it was drawn from, so that a deletion finds it")

    @model_validator(mode="after")
    def _one_of(self) -> Anchor:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("an anchor has exactly one of messages, prompt")
        return self

    @property
    def asked(self) -> object:
        """What was asked, as judges are shown it."""
        return self.messages if self.messages is not None else self.prompt

    def content_id(self, task: TaskName) -> str:
        """The id that this content has on a task."""
        return derived_id(0, "anchor", task, canonical(self.asked), canonical(self.answer))


def set_hash(ids: Sequence[str]) -> str:
    """16 hex digits that two sets of anchors share exactly when they are the same."""
    return hashlib.sha256("\x1f".join(sorted(ids)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Instrument:
    """A judge by one criterion of one wording of a rubric, on a task."""

    task: str
    judge: str
    rubric: str
    rubric_hash: str

    @property
    def alert_id(self) -> str:
        """Of the alert that it drifted; the same whenever it does."""
        return derived_id(0, KIND, self.task, self.judge, self.rubric, self.rubric_hash)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What an instrument says of the anchors now, against what it said at the freeze; scores are 0–1.

    ``n`` anchors were scored both times. ``change`` is the mean of now minus then, with its 95% interval, ``p_value``
    that of the paired t test that it is 0. ``up`` and ``down`` anchors changed sides of 0.5.
    """

    n: int
    then: float | None
    now: float | None
    change: float | None
    low: float | None
    high: float | None
    p_value: float | None
    up: int
    down: int
    verdict: Verdict
    reason: str


def compare(then: Mapping[str, float], now: Mapping[str, float], policy: CalibrationPolicy) -> Comparison:
    """Compare scores of the same anchors, by anchor id.

    ``drifted`` takes both a change of ``anchor_effect`` or more and a p-value below ``anchor_alpha``; ``steady`` a
    change below half of that effect. In between nothing is said anew, so an alert does not flap. Anchors on which
    the judge abstained are missing in one of both and do not count: below ``anchor_min_n`` it is ``too few``.
    """
    both = sorted(then.keys() & now.keys())
    n = len(both)
    if n < policy.anchor_min_n:
        reason = f"{n} anchors scored both then and now, of {policy.anchor_min_n} that it takes"
        return Comparison(n, None, None, None, None, None, None, 0, 0, "too few", reason)
    changes = [now[id] - then[id] for id in both]
    change = fmean(changes)
    before, after = fmean(then[id] for id in both), fmean(now[id] for id in both)
    low, high, p_value = _paired_t(changes)
    up = sum(then[id] < 0.5 <= now[id] for id in both)
    down = sum(now[id] < 0.5 <= then[id] for id in both)
    verdict: Verdict = "between"
    if abs(change) >= policy.anchor_effect and p_value < policy.anchor_alpha:
        verdict = "drifted"
    elif abs(change) < policy.anchor_effect / 2:
        verdict = "steady"
    reason = (
        f"mean {before:.3f} at the freeze, {after:.3f} now: {change:+.3f} [{low:+.3f}, {high:+.3f}], "
        f"p = {p_value:.2g}, n = {n} anchors; {up} rose above 0.5, {down} fell below"
    )
    return Comparison(n, before, after, change, low, high, p_value, up, down, verdict, reason)


def _paired_t(changes: Sequence[float]) -> tuple[float, float, float]:
    """The 95% interval of the mean change and the two-sided p-value of the paired t test."""
    from scipy import stats  # takes a second, and most commands never need it

    n, mean = len(changes), fmean(changes)
    error = math.sqrt(math.fsum((one - mean) ** 2 for one in changes) / (n - 1) / n)
    if error < 1e-12:  # every anchor moved by the same
        return mean, mean, 1.0 if abs(mean) < 1e-12 else 0.0
    radius = float(stats.t.ppf(0.975, n - 1)) * error
    return mean - radius, mean + radius, 2 * float(stats.t.sf(abs(mean) / error, n - 1))


def alert(
    of: Instrument, found: Comparison, policy: CalibrationPolicy, at: datetime, stands: str | None
) -> Alert | None:
    """What to say of the comparison; None where there is nothing to say.

    Args:
        of: who scored the anchors.
        found: from `compare`.
        policy: its thresholds.
        at: when the anchors were scored.
        stands: the state of this instrument's alert so far; None where there never was one.

    Returns:
        An open alert while the judge has drifted (an acknowledged one stays so), a resolved one when it is back.
    """
    if found.verdict == "drifted":
        state: Literal["open", "acknowledged", "resolved"] = "acknowledged" if stands == "acknowledged" else "open"
        title = f"the judge {of.judge} scores {of.task}'s frozen answers differently"
        action = (
            "The judge moved, not the model: judged means of this task do not compare with those from before. See "
            "what changed at the judge's endpoint (model, version, settings). To go on with it as it is now, freeze "
            f"the same answers again (ratchet judge anchors freeze {of.task} --from anchors/{of.task}.jsonl --replace) "
            "and label answers anew (ratchet judge calibrate)."
        )
    elif found.verdict == "steady" and stands in ("open", "acknowledged"):
        state, title = "resolved", f"the judge {of.judge} scores {of.task}'s frozen answers as at the freeze again"
        action = "Nothing to do; judged means from in between do not compare."
    else:
        return None
    return Alert(
        id=of.alert_id,
        at=at,
        task=of.task,
        kind=KIND,
        severity="warning",
        state=state,
        title=title[:256],
        summary=f"{of.rubric} ({of.rubric_hash}): {found.reason}",
        action=action,
        key=f"{KIND}:{of.task}:{of.judge}:{of.rubric}"[:256],
        runbook="docs/runbooks/judge-drift.md",
        false_alarms_per_year=round(policy.anchor_alpha * 24 * 365 / policy.anchor_hours, 3),
        evidence={
            "judge": of.judge,
            "rubric": of.rubric,
            "rubric_hash": of.rubric_hash,
            "n": found.n,
            "then": found.then,
            "now": found.now,
            "change": found.change,
            "low": found.low,
            "high": found.high,
            "p_value": found.p_value,
        },
        source="judge",
    )

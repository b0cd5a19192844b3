"""What `ratchet judge calibrate` does: labels from feedback or a file, judges from ClickHouse or the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ratchet.consumers.calibration import Corrected, Questions, Scored, correct, measured, scored
from ratchet.consumers.rules.calibration import Sums
from ratchet.consumers.rules.standing import (
    Calibration,
    Labelled,
    Standing,
    calibrate,
    expiry,
    indicator,
    standing,
    tally,
)
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, DatasetError, SettingsError
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.labels import LabelFile, as_scores, labelled, read_labels

FLUSH_S = 30.0
CHUNK = 5_000
"""Ids that one question binds."""

__all__ = ["Calibrated", "keep", "nothing", "of_feedback", "of_labels", "of_scores", "policy_of", "read_labels"]


@dataclass(frozen=True)
class Calibrated:
    """A judge's calibration, what it makes of the judge, and the traffic's figures without the judge's errors."""

    calibration: Calibration
    standing: Standing
    corrected: Corrected

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        stands = {"trusted": self.standing.trusted, "reason": self.standing.reason}
        return self.calibration.as_json() | {"standing": stands, "corrected": self.corrected.as_json()}


def policy_of(tasks: Mapping[str, TaskPolicy], task: str) -> TaskPolicy:
    """A declared task's policy.

    Raises:
        SettingsError: it is not declared.
    """
    if task not in tasks:
        raise SettingsError(f"task {task!r} is not in ratchet.toml; allowed: {', '.join(sorted(tasks)) or 'none yet'}")
    return tasks[task]


def nothing(judge: str | None, rubric: str | None) -> str:
    """Say that there is no judge to show."""
    asked = (f" of judge {judge!r}" if judge else "") + (f" by rubric {rubric!r}" if rubric else "")
    return f"no score{asked} on an answer that people labelled: n = 0, so every judge is advisory"


def of_feedback(
    store: Questions, task: str, policy: TaskPolicy, since: datetime | None, now: datetime
) -> list[Calibrated]:
    """Every judge of a task by the labels that ClickHouse has: feedback, and labels that were kept.

    Args:
        store: ClickHouse.
        task: whose answers.
        policy: its thresholds.
        since: from when on the traffic's figures are corrected; None: as long as labels count.
        now: the present instant.
    """
    return _with_traffic(store, task, measured(store, task, policy, now), policy, since, now)


def of_labels(
    store: Questions, task: str, file: LabelFile, policy: TaskPolicy, since: datetime | None, now: datetime
) -> list[Calibrated]:
    """Every judge that scored answers which the file labels, by those labels alone."""
    words = {one.inference_id: one for one in file.records if one.inference_id}  # the last word on an answer counts
    items: dict[tuple[str, str, str], list[Labelled]] = {}
    for ids in _chunks(list(words)):
        for row in store.query("judge_scores_of", task=task, ids=ids):
            word = words[row["answer"]]
            item = Labelled(float(word.label or 0), row["said"], 1 / row["probability"], word.at)
            items.setdefault((row["judge"], row["rubric"], row["rubric_hash"]), []).append(item)
    found = [_calibrate(task, *of, labels, policy, now) for of, labels in items.items()]
    return _with_traffic(store, task, found, policy, since, now)


def of_scores(task: str, file: LabelFile, policy: TaskPolicy, now: datetime, judge: str, rubric: str) -> Calibrated:
    """A judge by a file that brings its scores along; records without a label are the rest of its traffic."""
    found = _calibrate(task, judge, rubric, "", labelled(file.records), policy, now)
    traffic = Scored()
    for one in file.records:
        if one.score is None:
            continue
        scores = Sums.of([(0.0, one.score, 1 / one.inclusion_probability)])
        rest = Sums() if one.label is not None else scores
        positive = indicator(scores, one.score >= 0.5)
        traffic = Scored(traffic.positive + positive, traffic.scores + scores, traffic.unlabelled + rest)
    return Calibrated(found, standing(found, policy.judge, now), correct(found, traffic))


def keep(store: Questions, publisher: Publisher, task: str, file: LabelFile, now: datetime) -> int:
    """Publish a file's labels, so that they count in every calibration; how many.

    Raises:
        DatasetError: labels of answers that are not stored.
        BrokerError: Kafka did not take them.
    """
    ids = [one.inference_id for one in file.records if one.inference_id]
    adapters: dict[str, str] = {}
    for chunk in _chunks(ids):
        adapters |= {row["answer"]: row["adapter"] for row in store.query("answered_by", task=task, ids=chunk)}
    if missing := sorted(set(ids) - adapters.keys()):
        shown = ", ".join(missing[:5])
        raise DatasetError(f"{len(missing)} labels are of no stored answer of task {task}: {shown}; nothing is kept")
    scores = as_scores(task, file.records, adapters, now)
    try:
        for score in scores:
            publisher.publish(score)
        if left := publisher.flush(FLUSH_S):
            raise BrokerError(f"Kafka did not take {left} of {len(scores)} labels within {FLUSH_S:g} s; try again")
    finally:
        publisher.close()
    return len(scores)


def _calibrate(
    task: str, judge: str, rubric: str, rubric_hash: str, items: list[Labelled], policy: TaskPolicy, now: datetime
) -> Calibration:
    counts = timedelta(days=policy.calibration.label_days)
    fresh = [one for one in items if one.at is None or one.at >= now - counts]
    times = [one.at or now for one in fresh if one.label != 0.5]
    return calibrate(
        task,
        judge,
        rubric,
        rubric_hash,
        tally(fresh),
        expired=sum(one.label != 0.5 for one in items) - len(times),
        expires_at=expiry(times, policy.judge.min_labels, counts),
    )


def _with_traffic(
    store: Questions, task: str, found: list[Calibration], policy: TaskPolicy, since: datetime | None, now: datetime
) -> list[Calibrated]:
    start = since or now - timedelta(days=policy.calibration.label_days)
    said = scored(store, task, policy, start, now) if found else {}
    calibrated = []
    for one in found:
        traffic = said.get((one.judge, one.rubric, one.rubric_hash), Scored())
        calibrated.append(Calibrated(one, standing(one, policy.judge, now), correct(one, traffic)))
    return calibrated


def _chunks(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]

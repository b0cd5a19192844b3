"""Consumer ``drift``: judges each hour of every served adapter once it is over, and keeps its alerts true.

It reads ClickHouse and writes to Kafka (``ratchet.drift``, ``ratchet.alert``), so a second one, or one that was killed
in the middle, says the same again under the same ids. An hour is judged ``lateness_s`` after its end; where late
events change an hour of the last ``amend_hours``, it and the hours after it are judged anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import orjson

from ratchet.consumers.calibration import in_force
from ratchet.consumers.error_rates import Expected, expected_for
from ratchet.consumers.examples import examples
from ratchet.consumers.looking import keep_looking
from ratchet.consumers.report import hours, measure
from ratchet.consumers.rules.alerting import Severity, step
from ratchet.consumers.rules.drift import Ruling, Run, calmer, rule_on, same_hours
from ratchet.consumers.rules.following import FALLS, RISES, TABLE, Followed, follow, rate_thresholds, thresholds
from ratchet.consumers.rules.measurement import HourValue, Window
from ratchet.consumers.rules.telling import HOUR, finding, hour_event, shift_event
from ratchet.consumers.shift_rates import expected_of_shift
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.monitoring_events import Alert, Drift
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

log = logging.getLogger("ratchet.drift")
EVERY_S = 60.0
"""Seconds between two looks for an hour that is due or was amended."""
CATCH_UP = 24
"""After an absence so many hours are judged at most; the rules that follow the hours read all of them anyway."""
LEAST_BASELINE = timedelta(days=1)
Subject = tuple[str, str]
"""A task and an adapter."""
Estimate = Callable[[], Expected | None]
"""How often the rule is wrong; asked only for what is told, because a shift's is simulated."""


class Monitor:
    """Looks at every task; call `look` again and again, one at a time.

    Args:
        store: migrated.
        publisher: takes the events.
        tasks: policies by task.
        clock: the present instant.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        tasks: Mapping[str, TaskPolicy],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._tasks = tasks
        self._clock = clock
        # What was said and may not be in the store yet: the end of the last hour, and each shift's run at hours' ends.
        self._upto: dict[Subject, datetime] = {}
        self._runs: dict[Subject, dict[datetime, dict[str, Run]]] = {}
        self._known: dict[str, Alert] = {}
        self._counts: dict[str, tuple[Window, dict[datetime, int]]] = {}

    def look(self) -> int:
        """Judge what is due; returns how many hours of adapters that was.

        Raises:
            StoreError: ClickHouse is away; what was judged is said, the rest is due the next time.
            BrokerError: the publisher's queue is full; likewise.
        """
        return sum(self._task(task, policy) for task, policy in self._tasks.items() if policy.drift.enabled)

    def _task(self, task: str, policy: TaskPolicy) -> int:
        end = _floor(self._clock() - timedelta(seconds=policy.drift.lateness_s))
        since = end - max(CATCH_UP, policy.drift.amend_hours) * HOUR
        amended = self._amended(task, end - policy.drift.amend_hours * HOUR, end)
        judged = 0
        for row in self._store.query("drift_watched", task=task, since=instant(since)):
            subject = (task, str(row["adapter"]))
            begun = _floor(max(row["promoted_at"] or row["began"], row["began"]))
            upto = self._said_upto(subject, end)
            first = upto if upto is not None else end - HOUR
            if amended is not None:
                first = min(first, amended)
            due = [at for at in _ends(max(first, since, begun + LEAST_BASELINE), end)]
            if due:
                self._hours(subject, policy, begun, due)
                judged += len(due)
        return judged

    def _said_upto(self, subject: Subject, end: datetime) -> datetime | None:
        """The end of the last hour that was judged: as far as memory, else the store, tells."""
        if subject in self._upto:
            # a clock that went back judges no hour twice; one that ran ahead and came back starts again from now
            return min(self._upto[subject], end)
        rows = self._store.query("drift_last", task=subject[0], adapter=subject[1], upto=instant(end))
        if not rows:
            return None
        upto: datetime = rows[0]["upto"]
        shifts = [row for row in rows if row["rule"] == "shift"]
        self._upto[subject] = upto
        self._runs[subject] = {
            row["at"]: {one["metric"]: Run(one["streak"], one["calm"]) for one in shifts if one["at"] == row["at"]}
            for row in shifts
        }
        return upto

    def _amended(self, task: str, since: datetime, until: datetime) -> datetime | None:
        """The first hour of these that has changed since the last look."""
        rows = self._store.query("drift_counts", task=task, since=instant(since), until=instant(until))
        now = {row["hour"]: int(row["known"]) for row in rows}
        if task not in self._counts:
            self._counts[task] = Window(since, until), now
            return None
        seen, before = self._counts[task]
        self._counts[task] = Window(since, until), now
        both = (hour for hour in now if seen.since <= hour < seen.until)
        return min((hour for hour in both if now[hour] != before.get(hour, 0)), default=None)

    def _hours(self, subject: Subject, policy: TaskPolicy, begun: datetime, due: list[datetime]) -> None:
        """Judge these hours, named by their ends, of one adapter."""
        task, _ = subject
        self._know(task)
        word = in_force(self._store, task, policy, self._clock())
        advisory = None if word.standing.trusted else word.standing.reason
        # a panel's or a cascade's name has its members' in it
        drifts = self._store.query("judge_drifts", task=task)
        silence = [row["title"] for row in drifts if not row["judge"] or row["judge"] in word.judge]
        # read once for all the hours that are due; `follow` leaves out what comes after each
        values = {
            metric: hours(self._store, *subject, metric, begun, due[-1], policy=policy) for metric in (*FALLS, *RISES)
        }
        for at in due:
            for said, expected in [
                *self._shifts(subject, policy, begun, at),
                *self._followed(subject, policy, begun, at, values),
            ]:
                judged = said.metric.partition(":")[0] == "judge_score"
                if judged and silence:
                    said = said.model_copy(update={"reason": f"{said.reason}; no alert: {silence[0]}"})
                self._publisher.publish(said)
                if not (judged and silence):
                    self._alert(said, policy, expected, advisory if judged else None)
            self._upto[subject] = max(at, self._upto.get(subject, at))

    def _shifts(
        self, subject: Subject, policy: TaskPolicy, begun: datetime, at: datetime
    ) -> Sequence[tuple[Drift, Estimate]]:
        task, adapter = subject
        if at.hour % policy.drift.window_hours:
            return []  # windows do not overlap, so that each is news of its own
        window = Window(at - policy.drift.window_hours * HOUR, at)
        pinned = Window(begun, min(begun + policy.drift.baseline_hours * HOUR, window.since))
        if pinned.until - pinned.since < LEAST_BASELINE:
            return []
        whole = pinned.until - pinned.since == policy.drift.baseline_hours * HOUR
        found = measure(self._store, task, adapter, pinned, window, policy=policy, pinned=whole)
        alike = same_hours(pinned, window)
        bases = dict.fromkeys((one.metric for one in found), pinned)
        if alike is not None:
            # moved is what moved against both: one hour of the week is few, and the whole baseline has no week
            for other in measure(self._store, task, adapter, alike, window, policy=policy):
                index = next((at for at, one in enumerate(found) if one.metric == other.metric), None)
                if index is not None and calmer(found[index], other) is other:
                    found[index], bases[other.metric] = other, alike
        runs = self._runs.setdefault(subject, {})
        rulings: list[Ruling] = rule_on(found, runs.get(window.since, {}), policy.drift)
        runs[at] = {one.measurement.metric: one.run for one in rulings}
        for old in [hour for hour in runs if hour < at - (CATCH_UP + policy.drift.amend_hours) * HOUR]:
            del runs[old]
        said = [shift_event(task, adapter, bases[one.measurement.metric], window, one) for one in rulings]
        ask = partial(expected_of_shift, self._store, policy=policy, same_hours=alike is not None)
        return [(one, partial(ask, one)) for one in said]

    def _followed(
        self, subject: Subject, policy: TaskPolicy, begun: datetime, at: datetime, values: Mapping[str, list[HourValue]]
    ) -> Sequence[tuple[Drift, Estimate]]:
        task, adapter = subject
        # while the baseline still grows it ends a window before the hour, so that a fall does not enter it at once
        until = min(begun + policy.drift.baseline_hours * HOUR, at - policy.drift.window_hours * HOUR)
        said = []
        for metric, known in values.items():
            for one in follow(metric, known, until, at, policy.drift):
                if (hour := one.hours.get(at - HOUR)) is not None:
                    unit = "score" if metric == "judge_score" else "rate"
                    event = hour_event(task, adapter, one, at - HOUR, hour, Window(begun, until), unit)
                    said.append((event, partial(_expected, one, policy)))
        return said

    def _alert(self, said: Drift, policy: TaskPolicy, estimate: Estimate, advisory: str | None) -> None:
        severity: Severity = "critical" if said.rule == "page" and said.metric == "judge_score" else "warning"
        caveats = []
        if advisory is not None:
            severity = "warning"
            caveats.append(f"the judge is advisory: {advisory}")
        found = finding(said, severity=severity, false_alarms_per_year=None, examples=(), caveats=caveats)
        known = self._known.get(found.key)
        if step(known, found, policy.drift) is None:
            return
        # what takes more questions is asked only for what is told
        expected = estimate()
        if expected and expected.note:
            caveats.append(f"its false alarms a year are a guess: {expected.note}")
        told = finding(
            said,
            severity=severity,
            false_alarms_per_year=expected.per_year if expected else None,
            examples=examples(self._store, said, policy.completion),
            caveats=caveats,
        )
        event = step(known, told, policy.drift)
        assert event is not None
        self._publisher.publish(event)
        self._known[found.key] = event
        log.warning("%s, %s: %s", event.severity, event.state, event.title)

    def _know(self, task: str) -> None:
        """Read how the task's alerts stand; what this process said last may not be in the store yet."""
        for row in self._store.query("alerts_known", task=task):
            stored = _alert(row)
            known = self._known.get(stored.key)
            # at one instant the store knows what a person said of it, e.g. that it is acknowledged
            if known is None or stored.at >= known.at:
                self._known[stored.key] = stored


def _alert(row: dict[str, Any]) -> Alert:
    fields = {name: value for name, value in row.items() if value not in ("", None)}
    return Alert.model_validate(fields | {"evidence": orjson.loads(row["evidence"])})


def _expected(followed: Followed, policy: TaskPolicy) -> Expected | None:
    if followed.baseline.abstains is not None:
        return None
    limits = rate_thresholds(policy.drift) if followed.rule == "rate" else thresholds(policy.drift)
    return expected_for(TABLE[followed.rule], followed.baseline, limits)


def _floor(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _ends(since: datetime, until: datetime) -> list[datetime]:
    """The ends of the hours that begin from ``since`` on and end by ``until``."""
    count = int((until - _floor(since)) / HOUR)
    return [_floor(since) + number * HOUR for number in range(1, count + 1)]


class Looks(Protocol):
    """What is looked with: a `Monitor`."""

    def look(self) -> int:
        """Judge what is due."""
        ...


async def keep_watching(monitor: Looks, stop: asyncio.Event, every_s: float = EVERY_S) -> None:
    """Look again and again, beside the loop, until ``stop`` is set; what is away is waited for and said once."""
    await keep_looking(
        lambda: asyncio.to_thread(monitor.look), stop, every_s, log, "hours are judged when this is over"
    )

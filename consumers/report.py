"""What drift measures: questions to ClickHouse over hourly rollups, answers as `Measurement` and `HourValue`.

Nothing is decided here: which move is worth an alert is for the rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ratchet.consumers.rules.bins import Counts
from ratchet.consumers.rules.measurement import HourValue, Measurement, Side, Window
from ratchet.consumers.rules.measuring import Sums, lengths, means, rates, shares, versions, with_values
from ratchet.consumers.topics import topics
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

HOUR_METRICS = (
    "judge_score",
    "satisfaction",
    "completion",
    "refusals",
    "uncertainty",
    "answer_length",
    "prompt_length",
    "latency",
    "cost",
    "errors",
)
"""The metrics that `hours` knows."""
_MILLISECOND, _NANO_USD = 1.0, 1e-9


def measure(
    store: Store,
    task: str,
    adapter: str,
    baseline: Window,
    window: Window,
    *,
    policy: TaskPolicy | None = None,
    exact: bool = False,
    pinned: bool = False,
) -> list[Measurement]:
    """Measure every metric of a task's production traffic in a window beside a baseline.

    Metrics: ``answer_length``, ``prompt_length`` (characters), ``latency`` (ms), ``cost`` (USD), ``refusals``,
    ``uncertainty``, ``errors`` (rates), ``answer_terms``, ``prompt_terms``, ``answer_topics``, ``prompt_topics``,
    ``judge_score`` (one Measurement a judge version; ``judge_score:<judge>:<rubric>#<rubric hash>`` is any but the one
    with most scores in the window), ``satisfaction`` (thumbs) and ``completion``. Always all of them: what cannot be
    said has ``abstains``.

    Windows are read by whole hours, all that begin from ``since``'s hour on and before ``until``; the two must have no
    hour in common.

    Args:
        store: migrated.
        task: its name.
        adapter: whose answers; ``""`` means all of the task's.
        baseline: what is normal.
        window: what is asked about.
        policy: the task's; says what completion is (``outcome`` or a check) and which rubric counts. Without it
            completion is outcomes, and every rubric counts.
        exact: take the lengths' distances from every answer's own length instead of from the rollups' bins (reads
            the rows, so they must not have expired), and add them as Evidently defines them.
        pinned: the baseline is an adapter's for good and over: its topics are kept.

    Returns:
        The measurements, in the order above.

    Raises:
        ValueError: a window that is empty, not aware, or overlaps the other.
        StoreError: ClickHouse refused or is away.
    """
    asked = _windows(task, adapter, baseline, window)
    completion = (policy or TaskPolicy()).completion
    traffic = {bool(row["now"]): row for row in store.query("drift_traffic", **asked)}
    before, now = traffic.get(False, {}), traffic.get(True, {})
    found = [_lengths(name, before, now) for name in ("answer", "prompt")]
    if exact:
        found = [with_values(one, _values(store, one, asked)) for one in found]
    found += [
        means(
            "latency", "ms", *_sums("timed", "latency", before, now), _counts("latency_bins", before, now, _MILLISECOND)
        ),
        means("cost", "USD", *_sums("priced", "cost", before, now), _counts("cost_bins", before, now, _NANO_USD)),
    ]
    for metric, column, of in (
        ("refusals", "refusals", "answers"),
        ("uncertainty", "uncertain", "answers"),
        ("errors", "errors", "calls"),
    ):
        found.append(rates(metric, before.get(column, 0), before.get(of, 0), now.get(column, 0), now.get(of, 0)))
    found += _terms(store.query("drift_terms", **asked))
    counted = (before.get("prompts", 0), now.get("prompts", 0))
    found += topics(store, task, adapter, _whole_hours(baseline), _whole_hours(window), *counted, keep=pinned)
    found += versions("judge_score", "score", *_scores(store, asked, _rubric(policy)))
    found.append(_feedback(store, asked, "satisfaction", "thumb"))
    if completion == "outcome":
        found.append(_feedback(store, asked, "completion", "outcome"))
    else:
        found += versions("completion", "rate", *_passes(store, asked, completion), as_rate=True)
    return found


def hours(
    store: Store,
    task: str,
    adapter: str,
    metric: str,
    since: datetime,
    until: datetime,
    *,
    policy: TaskPolicy | None = None,
) -> list[HourValue]:
    """Give a metric's hours, oldest first; hours without an observation are left out, never 0.

    The present hour is among them while it lasts, and late events amend theirs: ask again. ``judge_score`` is of one
    judge version, the one that scored the most in the last day with scores; what others scored is left out.

    Args:
        store: migrated.
        task: its name.
        adapter: whose answers; ``""`` means all of the task's.
        metric: one of `HOUR_METRICS`.
        since: from this instant's hour on.
        until: hours that begin before this instant.
        policy: as `measure` has it.

    Returns:
        Mean and variance in the metric's unit: 0–1 for scores and rates, characters, ms, USD.

    Raises:
        ValueError: an unknown metric, or instants that are not aware.
        StoreError: ClickHouse refused or is away.
    """
    if metric not in HOUR_METRICS:
        raise ValueError(f"metric {metric!r}; allowed: {', '.join(HOUR_METRICS)}")
    _aware(since, until)
    asked = {"task": task, "adapter": adapter, "since": instant(_hour(since)), "until": instant(until)}
    completion = (policy or TaskPolicy()).completion
    if metric == "judge_score":
        rows = store.query("drift_score_hours", **asked, kind="pointwise", rubric=_rubric(policy))
        values = (HourValue(row["hour"], row["n"], row["mean"], row["variance"]) for row in rows)
        return [value for value in values if math.isfinite(value.mean)]
    if metric == "completion" and completion != "outcome":
        rows = store.query("drift_pass_hours", **asked, rubric=completion)
    elif metric in ("satisfaction", "completion"):
        kind = "thumb" if metric == "satisfaction" else "outcome"
        rows = store.query("drift_feedback_hours", **asked, kind=kind)
    else:
        rows = store.query("drift_hours", **asked, metric=metric)
    sums = ((row["hour"], Sums.of(row["n"], row["added"], row["squared"])) for row in rows)
    return [HourValue(hour, one.n, one.mean, one.variance) for hour, one in sums if math.isfinite(one.mean)]


def length_hours(
    store: Store, task: str, adapter: str, metric: str, since: datetime, until: datetime
) -> dict[datetime, dict[int, int]]:
    """Give the lengths of each hour's texts: how many by the rollups' bins (``rules.bins``), by hour, oldest first.

    Args:
        store: migrated.
        task: its name.
        adapter: whose texts; ``""`` means all of the task's.
        metric: ``answer_length`` or ``prompt_length``.
        since: from this instant's hour on.
        until: hours that begin before this instant.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    asked = {
        "task": task,
        "adapter": adapter,
        "metric": metric,
        "since": instant(_hour(since)),
        "until": instant(until),
    }
    rows = store.query("drift_length_hours", **asked)
    return {row["hour"]: {int(number): int(n) for number, n in row["bins"].items()} for row in rows}


def term_hours(
    store: Store, task: str, adapter: str, side: Side, since: datetime, until: datetime
) -> dict[str, list[HourValue]]:
    """Give the hourly share of texts with each of a baseline's twenty commonest terms, oldest first.

    Args:
        store: migrated.
        task: its name.
        adapter: whose texts; ``""`` means all of the task's.
        side: of prompts (``input``) or answers (``output``).
        since: from this instant's hour on.
        until: hours that begin before this instant.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    found: dict[str, list[HourValue]] = {}
    asked = {"task": task, "adapter": adapter, "side": side, "since": instant(_hour(since)), "until": instant(until)}
    for row in store.query("drift_term_hours", **asked):
        share = float(row["share"])
        found.setdefault(row["term"], []).append(HourValue(row["hour"], row["n"], share, share * (1 - share)))
    return found


def _rubric(policy: TaskPolicy | None) -> str:
    """The rubric whose scores count, without those of its single criteria; any where no policy is given."""
    return policy.judge.rubric if policy is not None else ""


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _whole_hours(window: Window) -> Window:
    return Window(_hour(window.since), window.until.astimezone(UTC))


def _aware(*instants: datetime) -> None:
    for one in instants:
        if one.tzinfo is None:
            raise ValueError(f"instant {one.isoformat()}; allowed: with a time zone")


def _windows(task: str, adapter: str, baseline: Window, window: Window) -> dict[str, Any]:
    """What the questions bind; refuses windows that cannot be compared."""
    _aware(baseline.since, baseline.until, window.since, window.until)
    for name, one in (("baseline", baseline), ("window", window)):
        if one.since >= one.until:
            raise ValueError(
                f"{name} from {one.since.isoformat()} until {one.until.isoformat()}; allowed: since < until"
            )
    one, other = _whole_hours(baseline), _whole_hours(window)
    if one.since < other.until and other.since < one.until:
        raise ValueError(
            f"baseline until {one.until.isoformat()} and window since {other.since.isoformat()} have hours in common; "
            "allowed: windows apart, by whole hours"
        )
    return {
        "task": task,
        "adapter": adapter,
        "base_since": instant(one.since),
        "base_until": instant(one.until),
        "since": instant(other.since),
        "until": instant(other.until),
    }


def _sums(n: str, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Sums, Sums]:
    one, other = (
        Sums.of(side.get(n, 0), side.get(f"{name}_total", 0.0), side.get(f"{name}_squares", 0.0))
        for side in (before, now)
    )
    return one, other


def _counts(bins: str, before: Mapping[str, Any], now: Mapping[str, Any], unit: float = 1.0) -> Counts:
    return Counts.of_bins(before.get(bins, {}), now.get(bins, {}), unit)


def _lengths(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Measurement:
    sums = (
        Sums.of(side.get(f"{name}s", 0), side.get(f"{name}_characters", 0), side.get(f"{name}_squares", 0.0))
        for side in (before, now)
    )
    counts = _counts(f"{name}_bins", before, now)
    return lengths(f"{name}_length", "output" if name == "answer" else "input", "characters", counts, *sums)


def _values(store: Store, found: Measurement, asked: dict[str, Any]) -> Counts:
    rows = store.query("drift_values", **asked, side=found.side)
    return Counts.of_values(*([row[name] for row in rows] for name in ("value", "before", "now_with")))


def _terms(rows: list[dict[str, Any]]) -> Iterable[Measurement]:
    for metric, side in (("answer_terms", "output"), ("prompt_terms", "input")):
        mine = [row for row in rows if row["side"] == side]
        yield shares(
            metric,
            "output" if side == "output" else "input",
            [row["term"] for row in mine],
            [row["before"] for row in mine],
            [row["now_with"] for row in mine],
            max((row["texts_before"] for row in mine), default=0),
            max((row["texts_now"] for row in mine), default=0),
        )


def _scores(store: Store, asked: dict[str, Any], rubric: str) -> tuple[dict[str, Sums], dict[str, Sums]]:
    """By window, what each version of a judge said."""
    found: tuple[dict[str, Sums], dict[str, Sums]] = ({}, {})
    for row in store.query("drift_scores", **asked, kind="pointwise", rubric=rubric):
        found[bool(row["now"])][_version(row)] = Sums(row["n"], row["mean"], row["variance"])
    return found


def _passes(store: Store, asked: dict[str, Any], check: str) -> tuple[dict[str, Sums], dict[str, Sums]]:
    """By window, how many answers passed each version of a check: whatever grades it gives, an answer passes or not."""
    found: tuple[dict[str, Sums], dict[str, Sums]] = ({}, {})
    for row in store.query("drift_passes", **asked, rubric=check):
        found[bool(row["now"])][_version(row)] = Sums.of(row["passed"] + row["failed"], row["passed"], row["passed"])
    return found


def _version(row: Mapping[str, Any]) -> str:
    return f"{row['judge']}:{row['rubric']}#{row['rubric_hash'][:8]}"


def _feedback(store: Store, asked: dict[str, Any], metric: str, kind: str) -> Measurement:
    rows = {bool(row["now"]): row for row in store.query("drift_feedback", **asked, kind=kind)}
    before, now = (rows.get(side, {"n": 0, "hits": 0.0}) for side in (False, True))
    return rates(metric, round(before["hits"]), before["n"], round(now["hits"]), now["n"])

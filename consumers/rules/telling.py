"""From rulings to what is said of them: drift events for the record, findings for alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import isfinite

from ratchet.consumers.rules.alerting import Finding, Severity
from ratchet.consumers.rules.drift import Ruling
from ratchet.consumers.rules.following import Followed, Hour
from ratchet.consumers.rules.measurement import Window
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Drift, Moved

HOUR = timedelta(hours=1)
_TABLES = {"page": "quality", "cusum": "quality", "detector": "quality", "rate": "drift", "shift": "drift"}


def event_id(at: datetime, task: str, adapter: str, metric: str, rule: str) -> str:
    """The id of what a rule says of a metric at the end of an hour: said again, it is the same row."""
    return derived_id(int(at.timestamp() * 1000), "drift", task, adapter, metric, rule)


def shift_event(task: str, adapter: str, baseline: Window, window: Window, ruling: Ruling) -> Drift:
    """What `rule_on` says of one metric, as an event."""
    found = ruling.measurement
    return Drift(
        id=event_id(window.until, task, adapter, found.metric, "shift"),
        at=window.until,
        task=task,
        adapter=adapter,
        metric=found.metric,
        rule="shift",
        side=found.side,
        unit=found.unit,
        since=window.since,
        baseline_since=baseline.since,
        baseline_until=baseline.until,
        n_baseline=round(found.n_baseline),
        n=round(found.n),
        baseline=_number(found.baseline),
        value=_number(found.value),
        distances={name: value for name, value in found.distances.items() if isfinite(value)},
        effect_name=found.effect_name,
        effect=_number(found.effect),
        threshold=ruling.threshold,
        test=found.test,
        p_value=_number(found.p_value),
        q_value=ruling.q_value,
        top=[Moved(label=one.label, before=one.before, now=one.now) for one in found.top],
        verdict=ruling.verdict,
        streak=ruling.run.streak,
        calm=ruling.run.calm,
        reason=ruling.reason,
    )


def hour_event(
    task: str, adapter: str, followed: Followed, begin: datetime, hour: Hour, baseline: Window, unit: str
) -> Drift:
    """What a rule that follows the hours says of one, as an event."""
    known = followed.baseline.abstains is None
    limit = hour.said.limit
    return Drift(
        id=event_id(begin + HOUR, task, adapter, followed.metric, followed.rule),
        at=begin + HOUR,
        task=task,
        adapter=adapter,
        metric=followed.metric,
        rule=followed.rule,
        unit=unit,
        since=begin,
        baseline_since=baseline.since,
        baseline_until=baseline.until,
        n_baseline=round(followed.baseline.n * followed.baseline.hours) if known else 0,
        n=round(hour.value.n) if hour.value else 0,
        baseline=followed.baseline.expected(begin) if known else None,
        value=_number(hour.value.mean) if hour.value else None,
        effect_name="statistic",
        effect=_number(hour.said.statistic),
        threshold=_number(limit),
        verdict=hour.verdict,
        streak=hour.run.streak,
        calm=hour.run.calm,
        reason=hour.said.reason,
    )


def finding(
    said: Drift,
    *,
    severity: Severity,
    false_alarms_per_year: float | None,
    examples: Sequence[str],
    caveats: Sequence[str],
) -> Finding:
    """What an alert would say of a drift event.

    Args:
        said: the event.
        severity: of the alert.
        false_alarms_per_year: of the rule, with nothing wrong; None: not known.
        examples: ids of inferences that show it.
        caveats: what a reader has to know as well, e.g. that the judge is advisory.
    """
    what = said.metric.replace("_", " ").replace(":", " by ")
    moved = f"{said.adapter}: {what}"
    change = _change(said)
    since = said.since if said.rule == "shift" else said.at - max(1, said.streak) * HOUR
    how = {
        "page": "more than the allowed share below its baseline for hours in a row",
        "cusum": "its falls add up to more than chance",
        "detector": "evidence that it has fallen",
        "rate": "evidence that it has risen",
        "shift": "its distribution has moved",
    }[said.rule]
    top = "; ".join(f"{one.label}: {one.before:.1%} → {one.now:.1%}" for one in said.top)
    summary = f"{change} (n = {said.n_baseline:,} and {said.n:,}); {said.reason or how}"
    summary += f"; most moved: {top}" if top else ""
    summary += "".join(f"; {caveat}" for caveat in caveats)
    page = _TABLES[said.rule] == "quality"
    return Finding(
        key=f"{_TABLES[said.rule]}:{said.task}:{said.adapter}:{said.metric}:{said.rule}"[:256],
        at=said.at,
        alarms=said.verdict == "drift",
        calm=said.calm,
        task=said.task,
        adapter=said.adapter,
        kind=_TABLES[said.rule],
        severity=severity,
        since=since,
        effect=said.effect or 0.0,
        title=f"{moved}: {how}",
        summary=summary,
        action="look at the examples and at what changed at that time; undo the last promotion if users are hurt"
        if page
        else "look at the examples: did the traffic change, or what the model makes of it?",
        runbook=f"docs/runbooks/{'quality' if page else 'drift'}.md",
        false_alarms_per_year=false_alarms_per_year,
        evidence={
            "metric": said.metric,
            "rule": said.rule,
            "baseline": said.baseline,
            "value": said.value,
            "unit": said.unit,
            "n_baseline": said.n_baseline,
            "n": said.n,
            "baseline_since": said.baseline_since.isoformat() if said.baseline_since else None,
            "baseline_until": said.baseline_until.isoformat() if said.baseline_until else None,
            "threshold": said.threshold,
            "top": [one.model_dump() for one in said.top],
            "inferences": list(examples),
        },
    )


def _change(said: Drift) -> str:
    if said.baseline is None or said.value is None:
        return "no mean"
    if said.unit in ("rate", "score"):
        return f"{said.baseline:.1%} → {said.value:.1%}"
    relative = f" ({said.value / said.baseline - 1:+.0%})" if said.baseline else ""
    return f"{said.baseline:.4g} → {said.value:.4g} {said.unit}{relative}"


def _number(value: float | None) -> float | None:
    """A figure that JSON has; infinities and NaN are none."""
    return value if value is not None and isfinite(value) else None

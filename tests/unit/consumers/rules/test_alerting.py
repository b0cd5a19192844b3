"""An alert's life, from the first hour to the last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.alerting import Finding, Severity, step
from ratchet.schemas.drift_policy import DriftPolicy
from ratchet.schemas.monitoring_events import Alert

POLICY = DriftPolicy(resolve_hours=3, cooldown_hours=6, reminder_hours=12)
START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def found(hour: int, alarms: bool, calm: int = 0, effect: float = 0.5, severity: Severity = "warning") -> Finding:
    """What a rule found at the end of an hour."""
    return Finding(
        key="drift:support:base:answer_length:shift",
        at=START + hour * HOUR,
        alarms=alarms,
        calm=calm,
        task="support",
        adapter="base",
        kind="drift",
        severity=severity,
        since=START + (hour - 3) * HOUR,
        effect=effect,
        title="base: answer length: its distribution has moved",
        summary=f"100 → 140 characters, effect {effect}",
        action="look",
        runbook="docs/runbooks/drift.md",
        false_alarms_per_year=0.1,
    )


def told(known: Alert | None, *findings: Finding) -> tuple[Alert | None, list[Alert]]:
    """Follow findings; the alert as it stands, and everything that was said."""
    said = []
    for one in findings:
        if (event := step(known, one, POLICY)) is not None:
            said.append(event)
            known = event
    return known, said


def test_it_is_raised_once_updated_when_it_grows_and_resolved() -> None:
    """Bad hours are one alert; a larger effect says it anew; good hours in a row resolve it, a single one does not."""
    bad = [found(hour, True) for hour in range(3)]
    alert, said = told(None, *bad, found(3, True, effect=0.8), found(4, False, 1), found(5, True, effect=0.8))
    assert [(one.state, one.evidence["effect"]) for one in said] == [("open", 0.5), ("open", 0.8)]
    assert len({one.id for one in said}) == 1
    assert {one.since for one in said} == {START - 3 * HOUR}
    _, more = told(alert, *(found(6 + calm, False, calm) for calm in range(1, 5)))
    assert [(one.state, one.at) for one in more] == [("resolved", START + 9 * HOUR)]
    assert "back within its limits for 3 hours" in more[0].summary


def test_what_comes_back_soon_is_the_same_alert_and_what_comes_later_a_new_one() -> None:
    """Within the cooldown the alert opens again under its id, since when it first began; after it another is raised."""
    _, [raised] = told(None, found(0, True))
    _, [resolved] = told(raised, found(3, False, 3))
    _, [again] = told(resolved, found(8, True))
    assert (again.id, again.state, again.since) == (raised.id, "open", raised.since)
    _, [later] = told(resolved, found(10, True))
    assert later.id != raised.id
    assert later.since == START + 7 * HOUR


def test_an_acknowledged_alert_stays_so_unless_it_gets_worse() -> None:
    """A person who knows is reminded without opening it; a higher severity opens it, a lower one changes nothing."""
    _, [raised] = told(None, found(0, True))
    known = raised.model_copy(update={"state": "acknowledged"})
    _, [reminded] = told(known, found(5, True), found(12, True))
    assert (reminded.state, reminded.at) == ("acknowledged", START + 12 * HOUR)
    _, [worse] = told(reminded, found(13, True, severity="critical"))
    assert (worse.state, worse.severity) == ("open", "critical")
    _, [still] = told(worse, found(26, True, severity="warning"))
    assert still.severity == "critical"
    _, [resolved] = told(known, found(3, False, 3))
    assert resolved.state == "resolved"


def test_an_hour_that_was_said_says_nothing_new() -> None:
    """A restart that judges the last hour again, or an hour before it, raises and resolves nothing."""
    _, [raised] = told(None, found(5, True))
    assert step(raised, found(5, True, effect=9.0), POLICY) is None
    assert step(raised, found(4, False, 99), POLICY) is None


@given(st.lists(st.tuples(st.sampled_from(["bad", "good", "abstain"]), st.floats(0.1, 9)), max_size=120))
def test_one_alert_is_open_at_a_time(hours: list[tuple[str, float]]) -> None:
    """Whatever happens: a resolved alert was open, an abstention says nothing, and replaying all says the same."""
    calm, findings = 0, []
    for hour, (kind, effect) in enumerate(hours):
        calm = 0 if kind == "bad" else calm + (kind == "good")
        if kind != "abstain":
            findings.append(found(hour, kind == "bad", calm, effect))
    _, said = told(None, *findings)
    assert told(None, *findings)[1] == said
    states: dict[str, str] = {}
    for event in said:
        if event.state == "resolved":
            assert states[event.id] == "open"
        else:
            assert all(state == "resolved" for id, state in states.items() if id != event.id)
        states[event.id] = event.state


def test_an_abstention_resolves_nothing() -> None:
    """A finding that neither alarms nor is calm leaves an open alert open for as long as it lasts."""
    _, [raised] = told(None, found(0, True))
    assert told(raised, *(found(hour, False, 0) for hour in range(1, 100)))[1] == []


@pytest.mark.parametrize("hours", [0, 23])
def test_a_baseline_of_less_than_a_day_is_refused(hours: int) -> None:
    """The policy names the field and what is allowed."""
    with pytest.raises(ValueError, match="baseline_hours"):
        DriftPolicy(baseline_hours=hours)

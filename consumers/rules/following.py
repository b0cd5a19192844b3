"""The rules that follow a metric hour by hour, folded over everything since its baseline began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ratchet.consumers.rules.drift import Run, step
from ratchet.consumers.rules.measurement import HourValue
from ratchet.consumers.rules.quality import Cusum, Detector, Page, Thresholds, Verdict, cusum, detector, fold, page
from ratchet.consumers.rules.quality_baseline import Baseline, estimate
from ratchet.consumers.rules.rates import Rate, RateThresholds, bernoulli
from ratchet.schemas.drift_policy import DriftPolicy
from ratchet.schemas.monitoring_events import DriftVerdict

Rule = Literal["page", "cusum", "detector", "rate"]
FALLS: dict[str, tuple[Rule, ...]] = {
    "judge_score": ("page", "cusum", "detector"),
    "satisfaction": ("page", "cusum"),
    "completion": ("page", "cusum"),
}
"""Metrics of which less is worse, and the rules that follow them."""
RISES = ("refusals", "uncertainty", "errors")
"""Rates of which more is worse."""
TABLE = {"page": "page", "cusum": "cusum", "detector": "detector", "rate": "bernoulli"}
"""The rules' names in the table of error rates."""
_VERDICTS: dict[str, DriftVerdict] = {"quiet": "ok", "suspect": "suspect", "alarm": "drift"}


@dataclass(frozen=True, slots=True)
class Hour:
    """What one rule says of one hour; ``value`` is None where the hour had no observation."""

    verdict: DriftVerdict
    run: Run
    said: Verdict
    value: HourValue | None


@dataclass(frozen=True, slots=True)
class Followed:
    """One rule over one metric's hours since the baseline's end, by the hour's begin."""

    metric: str
    rule: Rule
    baseline: Baseline
    hours: dict[datetime, Hour]


def thresholds(policy: DriftPolicy) -> Thresholds:
    """What the rules over means run with."""
    return Thresholds(drop=policy.quality_drop, hours=policy.quality_hours, min_n=policy.min_n)


def rate_thresholds(policy: DriftPolicy) -> RateThresholds:
    """What the rule over rates runs with."""
    return RateThresholds(min_n=policy.min_n)


def follow(
    metric: str, values: Sequence[HourValue], baseline_until: datetime, until: datetime, policy: DriftPolicy
) -> list[Followed]:
    """Run a metric's rules over its hours, from the baseline's end on.

    Folding everything again each time is how a late event amends its hour, and a rule that crossed its limit in an
    hour which looks well by now did not.

    Args:
        metric: of `FALLS` or `RISES`.
        values: its hours since the baseline began, in any order.
        baseline_until: hours that begin before this instant make the baseline, the others are judged.
        until: hours from here on have not ended, or a clock ran ahead: left out.
        policy: the task's.
    """
    own = estimate((one for one in values if one.hour < baseline_until), min_n=policy.min_n)
    judged = [one for one in values if one.hour >= baseline_until]
    if metric in RISES:
        _, said = fold(bernoulli, Rate(own), judged, rate_thresholds(policy), until)
        return [_followed(metric, "rate", own, said, judged)]
    found = []
    for rule in FALLS[metric]:
        limits = thresholds(policy)
        if rule == "page":
            _, said = fold(page, Page(own), judged, limits, until)
        elif rule == "cusum":
            _, said = fold(cusum, Cusum(own), judged, limits, until)
        else:
            _, said = fold(detector, Detector(own), judged, limits, until)
        found.append(_followed(metric, rule, own, said, judged))
    return found


def _followed(metric: str, rule: Rule, own: Baseline, said: Sequence[Verdict], judged: Sequence[HourValue]) -> Followed:
    by_hour = {one.hour: one for one in judged}
    run, hours = Run(), {}
    for one in said:
        verdict = _VERDICTS.get(one.outcome, "abstain")
        run = step(run, verdict)
        hours[one.hour] = Hour(verdict, run, one, by_hour.get(one.hour))
    return Followed(metric, rule, own, hours)

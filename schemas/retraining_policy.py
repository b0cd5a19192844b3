"""When a task may train by itself: how much is new, at which times, how often and for how much.

The trigger asks the questions in the order of ``consumers/rules/trigger.py``; a person's `ratchet train` asks none.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, model_validator

from ratchet.schemas.events import Closed

AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AlertKind = Literal["quality", "drift"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Weekday, ...] = get_args(Weekday)


def _zone(name: str) -> str:
    zone(name)
    return name


def zone(name: str) -> tzinfo:
    """The time zone of this name, as the IANA database has it; UTC needs no database.

    Raises:
        ValueError: there is none, or this machine has no database (the package ``tzdata`` is one).
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone here; allowed: 'UTC' or a name like 'Europe/Berlin'") from None


def _cron(expression: str) -> str:
    try:
        CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(
            f"{expression!r} is no cron expression ({error}); allowed: minute hour day month weekday, like '0 3 * * 1'"
        ) from None
    return expression


class QuietHours(Closed):
    """A span of the day in which no training starts; over midnight it belongs to the day on which it begins."""

    start: time
    end: time
    days: list[Weekday] = Field(default_factory=lambda: list(WEEK), min_length=1)

    @model_validator(mode="after")
    def _is_a_span(self) -> QuietHours:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start:%H:%M}; allowed: two different times of the day")
        return self

    def until(self, local: datetime) -> datetime | None:
        """When the quiet that holds at a local instant ends; None where it does not hold."""
        for begins in (local.date() - timedelta(days=1), local.date()):
            if WEEK[begins.weekday()] not in self.days:
                continue
            ends = begins + timedelta(days=1) if self.end < self.start else begins
            start = datetime.combine(begins, self.start, local.tzinfo)
            end = datetime.combine(ends, self.end, local.tzinfo)
            if start <= local < end:
                return end
        return None


class Budget(Closed):
    """What training by itself may take in any 30 days; what a person started counts as spent, too."""

    hours: Positive | None = None
    """Hours in which a training of this task ran."""
    usd: Positive | None = None
    """What it cost: a run's own ``cost_usd`` where it says one (a managed backend), else hours x ``usd_per_hour``."""
    usd_per_hour: Positive | None = None
    """Price of the machine that trains."""

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        if self.hours is None and self.usd is None:
            raise ValueError("neither hours nor usd is set; allowed: at least one of the two")
        return self


class RetrainingPolicy(Closed):
    """When training starts by itself."""

    enabled: bool = True
    min_new_pairs: AtLeastOne = 200
    cooldown_s: Annotated[float, Field(ge=0)] = 6 * 3600
    daily_cap: AtLeastOne = 4
    on_alerts: list[AlertKind] = Field(default_factory=lambda: list(get_args(AlertKind)))
    """An open alert of these kinds about the stable adapter asks for training, once; empty: none does."""
    alert_min_pairs: AtLeastOne = 50
    """So many new pairs are enough while an alert asks, where they are fewer than ``min_new_pairs``."""
    schedule: Annotated[str, AfterValidator(_cron)] | None = None
    """Times at which training is asked for, as cron says them, in ``timezone``: ``"0 3 * * 1"`` is Mondays at 3."""
    schedule_min_pairs: AtLeastOne = 8
    """So many new pairs are enough at a scheduled time, where they are fewer than ``min_new_pairs``."""
    schedule_grace_s: Positive = 6 * 3600.0
    """A scheduled time that nothing came of (nobody ran, or it was quiet, or too soon) stays due for so long."""
    quiet_hours: list[QuietHours] = Field(default_factory=list)
    """No training starts in these spans, in ``timezone``; one that runs goes on."""
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    budget: Budget | None = None

    def due(self, now: datetime) -> datetime | None:
        """The last scheduled time before an instant that is still within the grace; in UTC."""
        if self.schedule is None:
            return None
        local = now.astimezone(zone(self.timezone))
        # strictly before is what cronsim gives, and a scheduled time is due from its own instant on
        last = next(CronSim(self.schedule, local + timedelta(microseconds=1), reverse=True), None)
        if last is None or (now - last).total_seconds() > self.schedule_grace_s:
            return None
        return last.astimezone(UTC)

    def quiet_until(self, now: datetime) -> datetime | None:
        """When the quiet that holds at an instant ends (spans that touch are one); None where none holds."""
        local = now.astimezone(zone(self.timezone))
        ends = None
        # each round steps over one span; more rounds than spans in a week would be a circle
        for _ in range(7 * len(self.quiet_hours) + 1):
            until = max((end for span in self.quiet_hours if (end := span.until(ends or local))), default=None)
            if until is None:
                break
            ends = until
        return ends

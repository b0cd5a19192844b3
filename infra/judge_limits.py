"""What may be asked of a judge: a day's budget, requests and tokens a minute, and how long to wait after a failure.

Nothing here reads a clock: instants and seconds are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from ratchet.infra.kafka.backoff import backoff_s
from ratchet.schemas.errors import ModelError

BURST = 1 / 6
"""Share of a minute's allowance that may go at once."""


class BudgetSpent(ModelError):
    """The day's budget of a judge is spent; the text says when it goes on."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one judge may be asked: None is without limit; days are UTC's."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    usd_per_day: float | None = None


@dataclass(slots=True)
class TokenBucket:
    """A token bucket with debts: whoever takes more than there is waits, in turn, until it has filled again.

    Over any ``t`` minutes at most ``(t + BURST) × per_minute`` and one more request's worth are given.
    """

    per_minute: float
    level: float = field(init=False)
    at: float = field(default=-math.inf, init=False)

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        """What may go at once."""
        return max(1.0, self.per_minute * BURST)

    def take(self, amount: float, now: float) -> float:
        """Take ``amount`` at ``now`` (monotonic seconds); returns the seconds to wait before it may be used."""
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - max(self.at, now - 3600)) * self.per_minute / 60)
            self.at = now
        wait_s = max(0.0, (min(amount, self.capacity) - self.level) * 60 / self.per_minute)
        self.level -= amount
        return wait_s

    def give_back(self, amount: float) -> None:
        """Return what was taken and not used (below 0: what was used beyond)."""
        self.level = min(self.capacity, self.level + amount)


@dataclass(slots=True)
class DayBudget:
    """What a judge spent today and what is held for questions under way; starts anew at midnight UTC."""

    limits: Limits
    day: date = date.min
    tokens: float = 0
    usd: float = 0.0
    held_tokens: float = 0
    held_usd: float = 0.0

    def saw(self, now: datetime, tokens: float, usd: float) -> None:
        """Learn what is known elsewhere to have been spent today: the larger figure counts."""
        self._turn(now)
        self.tokens, self.usd = max(self.tokens, tokens), max(self.usd, usd)

    def problem(self, now: datetime, tokens: float, usd: float) -> str | None:
        """Why a question of this estimate may not be asked now, and from when on it may; None where it may."""
        self._turn(now)
        for limit, spent, more, unit in (
            (self.limits.tokens_per_day, self.tokens + self.held_tokens, tokens, "tokens"),
            (self.limits.usd_per_day, self.usd + self.held_usd, usd, "USD"),
        ):
            if limit is not None and spent + more > limit:
                on = datetime.combine(self.day + timedelta(days=1), time(), UTC)
                return (
                    f"the day's budget is spent ({spent:,.6g} of {limit:,} {unit}); it goes on at {on:%Y-%m-%dT%H:%MZ}"
                )
        return None

    def hold(self, now: datetime, tokens: float, usd: float) -> None:
        """Set an estimate aside before a question.

        Raises:
            BudgetSpent: what is left of the day is not enough for it.
        """
        if problem := self.problem(now, tokens, usd):
            raise BudgetSpent(problem)
        self.held_tokens += tokens
        self.held_usd += usd

    def settle(self, now: datetime, held: tuple[float, float], spent: tuple[float, float]) -> None:
        """Put what was spent (tokens, USD) in the place of what was held."""
        self._turn(now)
        self.held_tokens -= held[0]
        self.held_usd -= held[1]
        self.tokens += spent[0]
        self.usd += spent[1]

    def _turn(self, now: datetime) -> None:
        today = now.astimezone(UTC).date()
        if today > self.day:  # a clock that jumps back does not give the day again
            self.day, self.tokens, self.usd = today, 0, 0.0


def retry_wait_s(attempt: int, retry_after_s: float | None, jitter: float) -> float:
    """Seconds to wait after the ``attempt``-th failure: what the endpoint asked for, or a doubling back-off.

    Args:
        attempt: 1 after the first failure.
        retry_after_s: from the endpoint; it is never undercut.
        jitter: 0–1, so that not all come back at once: stretches either by up to half.
    """
    base = backoff_s(attempt, first_s=0.5) if retry_after_s is None else max(0.0, retry_after_s)
    return base * (1 + jitter / 2)


def retry_after_s(header: str | None) -> float | None:
    """Read a Retry-After header that counts seconds; None where there is none (a date is not understood)."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None

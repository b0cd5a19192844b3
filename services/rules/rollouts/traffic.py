"""What a task's traffic is like: how much, by whom, and how each metric shows itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LATENCY, WIN_RATE = "latency_p95", "win_rate"
P95_MS = 1_000.0
"""The stable arm's true 95th percentile; only ratios matter."""


@dataclass(frozen=True, slots=True)
class Signal:
    """How one metric shows itself: the stable arm's true mean, and how much of it is seen.

    ``spread`` is the standard deviation of one observation, None for a rate. ``share`` of requests show it, ``delay_h``
    hours after the request. A metric that is not ``mirrored`` says nothing of copies that no user sees.
    """

    base: float
    spread: float | None = None
    share: float = 1.0
    delay_h: float = 0.0
    mirrored: bool = True


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a task's traffic is like.

    ``users`` None: every request is a user's of its own. ``activity_sd`` is of the logarithm of a user's activity: 1.5
    gives the busiest 1% of users a fifth of the requests. ``icc`` is the correlation of two requests of one user.
    ``agreement`` is how often both arms' answers to one prompt share their luck. ``latency_sd`` is of the logarithm.
    """

    requests_per_hour: float
    signals: Mapping[str, Signal]
    users: int | None = None
    activity_sd: float = 1.5
    icc: float = 0.02
    agreement: float = 0.5
    latency_sd: float = 0.8

"""When bad messages stop being accidents: past a share of a window, dead-lettering must stop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FloodPolicy:
    """More than ``share`` bad messages of at least ``minimum`` bad ones within ``window_s`` seconds is a flood.

    ``minimum`` keeps a quiet topic's few bad messages from counting as one.
    """

    share: float = 0.5
    minimum: int = 100
    window_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse thresholds that could never, or always, be met."""
        if not 0 <= self.share < 1 or self.minimum < 1 or self.window_s <= 0:
            raise ValueError(f"{self}; allowed: 0 <= share < 1, minimum >= 1, window_s > 0")


@dataclass(frozen=True)
class Seen:
    """Messages of one poll: when (seconds on any steady clock), how many, how many of them bad."""

    at_s: float
    total: int
    bad: int


Window = tuple[Seen, ...]


def observe(window: Window, seen: Seen, policy: FloodPolicy) -> Window:
    """Add a poll to the window and let go of what is older than the policy's window.

    Polls within a hundredth of the window are kept as one, so the window stays short.
    """
    kept = tuple(poll for poll in window if poll.at_s > seen.at_s - policy.window_s)
    if kept and seen.at_s - kept[-1].at_s < policy.window_s / 100:
        last = kept[-1]
        return (*kept[:-1], Seen(last.at_s, last.total + seen.total, last.bad + seen.bad))
    return (*kept, seen)


def flooding(window: Window, policy: FloodPolicy) -> str | None:
    """Say how many of how many messages were bad where that is a flood; None where it is not."""
    total = sum(poll.total for poll in window)
    bad = sum(poll.bad for poll in window)
    if bad < policy.minimum or bad <= policy.share * total:
        return None
    return f"{bad} of {total} messages within {policy.window_s:g} s are no events (allowed share: {policy.share:.0%})"

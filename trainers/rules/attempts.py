"""How often a job that was interrupted is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempts:
    """Starts in a row that got no further.

    Attributes:
        n: how many, the one under way included.
        step: where the first of them began: the newest step that a checkpoint keeps.
    """

    n: int = 0
    step: int = 0


def begin(before: Attempts, step: int) -> Attempts:
    """Count one more start.

    A machine that is taken away every hour is no fault of the job's: a start from a later checkpoint than the last
    one counts from one again. What dies without getting anywhere is what the cap is for.

    Args:
        before: the starts until now.
        step: that the new one begins from.
    """
    return Attempts(1, step) if step > before.step else Attempts(before.n + 1, before.step)

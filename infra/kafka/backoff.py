"""How long to wait before trying again."""

from __future__ import annotations

FIRST_S = 0.25
LAST_S = 30.0


def backoff_s(attempt: int, first_s: float = FIRST_S, last_s: float = LAST_S) -> float:
    """Seconds to wait after the ``attempt``-th failure in a row: doubles from ``first_s`` up to ``last_s``."""
    return float(min(last_s, first_s * 2 ** min(attempt - 1, 30)))

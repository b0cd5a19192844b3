"""How many rows each class may keep so that none has more than its share."""

from __future__ import annotations

from collections.abc import Sequence

_ROUNDING = 1e-9


def cut(counts: Sequence[int], max_share: float) -> int:
    """The most rows that any class may keep, so that the largest has at most ``max_share`` of what is left.

    The largest ``m`` with ``m <= max_share * sum(min(count, m))``. Where no share so small can be had (fewer
    classes than ``1 / max_share``) it is the smallest class's count, so all are equal; one class keeps everything.

    Args:
        counts: rows of each class, all above 0.
        max_share: between 0 and 1.
    """
    if len(counts) < 2:
        return max(counts, default=0)

    low, high = min(counts), max(counts)
    while low < high:  # m over what is left only grows with m
        most = (low + high + 1) // 2
        if most <= max_share * sum(min(count, most) for count in counts) + _ROUNDING:
            low = most
        else:
            high = most - 1
    return low

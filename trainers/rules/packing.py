"""Rows put together into sequences of about one length, so that little is computed on padding.

Best fit decreasing: the longest row first, each into the fullest sequence that still has room for it (Johnson et al.,
"Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms", 1974: never more than 11/9 of the fewest
possible, and one). A row is never cut.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Group rows into sequences.

    Args:
        lengths: of the rows, each at most ``capacity``.
        capacity: the most tokens of a sequence.

    Returns:
        For each sequence the places of its rows, in the order in which they were put in.
    """
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left of each sequence, and its place; the fullest first
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        if length > capacity:
            raise ValueError(f"row {place} has {length} tokens; allowed: up to {capacity}")
        at = bisect_left(room, (length, -1))
        if at < len(room):
            left, group = room.pop(at)
        else:
            left, group = capacity, len(groups)
            groups.append([])
        groups[group].append(place)
        insort(room, (left - length, group))
    return groups

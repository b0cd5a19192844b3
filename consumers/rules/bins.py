"""The bins of the hourly rollups: which whole numbers one holds, and coarser groups of them.

Below 64 a bin is one number; above, each power of two has 32 equal bins, so a bin is at most 1/32 of its numbers
wide, whatever they are. Migration 0007 has the same formula in SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXACT = 64
_PARTS = 32


def bin_of(value: int) -> int:
    """The bin of a whole number ≥ 0."""
    if value < EXACT:
        return value
    power = value.bit_length() - 1
    return _PARTS * (power - 6) + (value >> (power - 5)) + _PARTS


def bin_range(number: int) -> tuple[int, int]:
    """The first and the last whole number of a bin."""
    if number < EXACT:
        return number, number
    power, part = divmod(number - EXACT, _PARTS)
    first = (part + _PARTS) << (power + 1)
    return first, first + (1 << (power + 1)) - 1


@dataclass(frozen=True)
class Counts:
    """What two windows counted of one ordered quantity: the value of each bin, and how many each window has of it.

    ``first`` and ``last`` bound a bin, ``values`` is what stands for it (its middle); for exact counts all three are
    the value itself.
    """

    first: Floats
    last: Floats
    before: Floats
    now: Floats

    @property
    def values(self) -> Floats:
        """What stands for each bin: the middle of its whole numbers."""
        middle: Floats = (self.first + self.last) / 2
        return middle

    @classmethod
    def of_bins(cls, before: Mapping[int, int], now: Mapping[int, int], unit: float = 1.0) -> Counts:
        """Line up two windows' bins; ``unit`` is what a whole number counts (1e-9 for billionths)."""
        numbers = sorted(before.keys() | now.keys())
        ranges = np.array([bin_range(number) for number in numbers], dtype=np.float64).reshape(-1, 2) * unit
        return cls(
            ranges[:, 0],
            ranges[:, 1],
            np.array([before.get(number, 0) for number in numbers], dtype=np.float64),
            np.array([now.get(number, 0) for number in numbers], dtype=np.float64),
        )

    @classmethod
    def of_values(cls, values: Sequence[float], before: Sequence[int], now: Sequence[int]) -> Counts:
        """Exact counts of each value, in any order; values are distinct."""
        order = np.argsort(np.asarray(values, dtype=np.float64), kind="stable")
        ordered = np.asarray(values, dtype=np.float64)[order]
        return cls(
            ordered, ordered, np.asarray(before, dtype=np.float64)[order], np.asarray(now, dtype=np.float64)[order]
        )

    def grouped(self, groups: int) -> Counts:
        """Coarser bins, cut at the quantiles of ``before`` (so that no group is empty there): what PSI and JS are over.

        Fewer than ``groups`` come out where one value has more than its share.
        """
        if self.before.sum() == 0 or len(self.before) == 0:
            return self
        share = np.cumsum(self.before) / self.before.sum()
        # a bin belongs to the group in which its first observation falls; bins without one join those below
        start = np.minimum(np.floor((share - self.before / self.before.sum()) * groups + 1e-9), groups - 1)
        start[self.before == 0] = -1
        of = np.maximum.accumulate(start)
        of[of < 0] = of[of >= 0].min()
        _, starts = np.unique(of, return_index=True)
        ends = np.append(starts[1:], len(of)) - 1
        return Counts(
            self.first[starts],
            self.last[ends],
            np.add.reduceat(self.before, starts),
            np.add.reduceat(self.now, starts),
        )

    def equal_width(self) -> Counts:
        """Equal bins by Sturges' rule over both windows' range, as ``numpy.histogram`` has them on the values.

        That is Evidently's binning of a number with more than 20 different values in the reference; with fewer, each
        value is a bin.
        """
        if int((self.before > 0).sum()) <= 20:
            return self
        low, high = float(self.values[0]), float(self.values[-1])
        width = max((high - low) / (np.log2(self.before.sum() + self.now.sum()) + 1.0), 1.0 if self._whole else 0.0)
        edges = np.linspace(low, high, int(np.ceil((high - low) / width)) + 1)
        before, _ = np.histogram(self.values, edges, weights=self.before)
        now, _ = np.histogram(self.values, edges, weights=self.now)
        return Counts(edges[:-1], edges[1:], before, now)

    @property
    def _whole(self) -> bool:
        return bool(np.all(self.values == np.floor(self.values)))

"""Rows put together: properties of the packing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.trainers.rules.packing import pack


@given(st.lists(st.integers(1, 64), max_size=80))
def test_every_row_is_packed_once_and_fits(lengths: list[int]) -> None:
    """No row is lost, doubled or cut, and no two sequences could have been one more than the bound allows."""
    groups = pack(lengths, 64)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    sums = sorted(sum(lengths[place] for place in group) for group in groups)
    assert all(total <= 64 for total in sums)
    assert len(sums) < 2 or sums[0] + sums[1] > 64
    assert len(groups) <= 11 / 9 * (sum(lengths) / 64 + len(lengths) / 2) + 1


def test_a_row_that_is_too_long_is_refused() -> None:
    """The caller leaves those out; to cut one here would teach it half an answer."""
    with pytest.raises(ValueError, match="row 1 has 9 tokens; allowed: up to 8"):
        pack([3, 9], 8)

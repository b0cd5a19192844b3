"""Counting pairs in the right order."""

import pytest

from ratchet.schemas.errors import DatasetError
from ratchet.trainers.preference_accuracy import PairScores, accuracy


def test_a_tie_is_wrong_and_length_can_decide() -> None:
    """By the answer a short one has the advantage; by the token it has not."""
    scores = [PairScores(-2.0, -3.0, 1, 10), PairScores(-5.0, -5.0, 5, 5), PairScores(-3.0, -2.0, 3, 1)]
    by_answer, by_token = accuracy(scores), accuracy(scores, length_normalised=True)
    assert (by_answer["k"], by_answer["n"]) == (1, 3)
    assert by_token["k"] == 1
    assert by_answer["low"] < by_answer["rate"] < by_answer["high"]


def test_no_pairs_is_an_error_not_a_rate() -> None:
    """Nothing measured is nothing known."""
    with pytest.raises(DatasetError, match="no pair is left"):
        accuracy([])

"""What a task may say of its judges."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.schemas.judging import JudgePolicy


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"judges": ["a", "a"]}, "each name once"),
        ({"judges": ["a", "b"], "quorum": 3}, "at most the number of judges"),
        ({"judges": ["a", "b"], "quorum": 2, "combine": "cascade"}, "with combine 'panel'"),
        ({"judges": ["A"]}, "judges"),
        ({"rubric": "../secrets"}, "rubric"),
        ({"rubric": "helpful"}, "rubric"),
        ({"temperature": 0}, "temperature"),
        ({"samples": 0}, "samples"),
        ({"fraction": 0}, "fraction"),
    ],
)
def test_wrong_policies_are_refused(wrong: dict[str, Any], says: str) -> None:
    """A name twice, a quorum that cannot be, a rubric that is a path, samples that would all be the same."""
    with pytest.raises(ValidationError, match=says):
        JudgePolicy(**wrong)


def test_defaults() -> None:
    """The only judge, all refusals, a tenth of the rest."""
    policy = JudgePolicy()
    assert (policy.judges, policy.refusal_fraction, policy.fraction, policy.samples) == ([], 1.0, 0.1, 3)
    assert JudgePolicy(judges=["a", "b", "c"], quorum=2).quorum == 2

"""A task's own function as a filter, in its process; a function that cannot judge stops the build."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.schemas.dataset_policy import DatasetPolicy
from ratchet.schemas.errors import DatasetError
from ratchet.trainers.measuring import limits
from ratchet.trainers.rules.dataset import Candidate
from ratchet.trainers.rules.selecting import select


def rows(n: int) -> list[Candidate]:
    """Rows whose answers are numbers."""
    return [
        Candidate(
            {
                "example_id": f"{number:02}",
                "prompt": [{"role": "user", "content": f"question {number}"}],
                "completion": [{"role": "assistant", "content": str(number)}],
            },
            f"c{number}",
            "thumb",
            holdout=False,
        )
        for number in range(n)
    ]


def test_a_function_of_the_tasks_own_decides(tmp_path: Path) -> None:
    """Rows below the threshold go under the function's name; one that raises on too many rows stops everything."""
    (tmp_path / "mine.py").write_text(
        "def toxic(answer):\n    return 0.2 if int(answer.text) % 5 == 0 else 0.9\n"
        "def picky(answer):\n    return 1 / (int(answer.text) % 4) <= 1\n"
    )
    policy = DatasetPolicy.model_validate({"filters": [{"function": "mine:toxic"}]})
    with limits(policy, "t", tmp_path, None, 512) as measured:
        made = select(rows(20), {}, policy, measured)
    assert made.dropped == {"filter mine:toxic": 4}
    policy = DatasetPolicy.model_validate({"filters": [{"function": "mine:picky"}]})
    picky = pytest.raises(DatasetError, match=r"mine:picky: cannot judge 5 of 20 rows.*ZeroDivisionError")
    with picky, limits(policy, "t", tmp_path, None, 512) as measured:
        select(rows(20), {}, policy, measured)
    policy = DatasetPolicy.model_validate({"filters": [{"function": "mine:absent"}]})
    absent = pytest.raises(DatasetError, match=r"tasks\.t\.dataset\.filters: .*no function 'absent'")
    with absent, limits(policy, "t", tmp_path, None, 512):
        pass

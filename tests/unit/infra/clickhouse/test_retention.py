"""Settings of retention as TTL clauses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ratchet.infra.clickhouse.retention import clauses, ttl
from ratchet.schemas.errors import StoreError
from ratchet.schemas.policies import Retention


def test_nothing_set_is_no_clause() -> None:
    """Rows are kept for ever unless somebody said otherwise."""
    assert set(clauses(Retention(), {"a": Retention()}).values()) == {""}


@pytest.mark.parametrize(
    ("common", "of_tasks", "clause"),
    [
        ("90d", {}, "toDateTime(at) + toIntervalDay(90)"),
        (None, {"a": "12h"}, "toDateTime(at) + toIntervalHour(12) WHERE task = 'a'"),
        (
            "90d",
            {"b": "1d", "a": "forever"},
            "toDateTime(at) + toIntervalDay(1) WHERE task = 'b', "
            "toDateTime(at) + toIntervalDay(90) WHERE task NOT IN ('a', 'b')",
        ),
        ("forever", {"a": "forever"}, ""),
    ],
)
def test_a_task_s_own_word_wins(common: str | None, of_tasks: dict[str, str], clause: str) -> None:
    """And tasks that said nothing, declared or not, follow the common one."""
    assert ttl(common, of_tasks) == clause


def test_a_clause_for_each_kind() -> None:
    """A kind's setting reaches its own table alone."""
    found = clauses(Retention(scores="30d"), {"a": Retention(pairs="1d")})
    assert {table for table, clause in found.items() if clause} == {"scores_log", "pairs_log"}
    assert set(found) == {
        "inferences_log", "shadows_log", "feedback_log", "scores_log", "training_log", "pairs_log"
    }  # fmt: skip


@pytest.mark.parametrize("keep", ["90", "0d", "d", "-1d", "90days", "1d; DROP TABLE x", "", "123456d"])
def test_other_spellings_are_refused(keep: str) -> None:
    """Before they could reach SQL."""
    with pytest.raises(ValidationError):
        Retention(inferences=keep)


@pytest.mark.parametrize("task", ["a'b", "A", "", "a b", "x' OR 1"])
def test_what_is_no_task_s_name_is_refused(task: str) -> None:
    """Though it would be escaped, too."""
    with pytest.raises(StoreError, match="no task's name"):
        ttl(None, {task: "1d"})

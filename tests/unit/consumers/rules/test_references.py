"""Expected answers: whose they are, and how alike an answer is."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.references import (
    MAX_FUZZY_CHARS,
    BadReference,
    compare,
    expected_of,
    normalized,
    read_references,
)
from ratchet.schemas.events import Request
from ratchet.schemas.rows import prompt_hash

ASKED = Request(messages=[{"role": "user", "content": "capital of France?"}], params={"metadata": {"case": "fr"}})
WITH_SYSTEM = Request(messages=[{"role": "system", "content": "Be brief."}, *(ASKED.messages or [])])


def lines(*rows: Any) -> str:
    """A JSONL file."""
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    "row",
    [{"messages": ASKED.messages}, {"prompt_hash": prompt_hash(ASKED)}, {"messages": WITH_SYSTEM.messages}],
)
def test_the_prompt_finds_its_line_with_and_without_the_tasks_system_message(row: dict[str, Any]) -> None:
    """The same question finds the same line, whether or not the gateway put the system message in front."""
    expected = read_references(lines(row | {"expect": "Paris"}), "prompt")
    assert expected_of(expected, "prompt", ASKED, {}) == ("Paris",)
    assert expected_of(expected, "prompt", WITH_SYSTEM, {}) == ("Paris",)
    assert expected_of(expected, "prompt", Request(prompt="capital of Peru?"), {}) is None


def test_a_tag_or_a_parameter_finds_its_line() -> None:
    """Requests that carry their case's name are matched by it; those without one are not."""
    expected = read_references(lines({"key": "fr", "expect": ["Paris", "Lutetia"]}), "tags.case")
    assert expected_of(expected, "tags.case", ASKED, {"case": "fr"}) == ("Paris", "Lutetia")
    assert expected_of(expected, "tags.case", ASKED, {}) is None
    assert expected_of(expected, "params.metadata.case", ASKED, {}) == ("Paris", "Lutetia")
    assert expected_of(expected, "params.metadata.case.deeper", ASKED, {}) is None


@pytest.mark.parametrize(
    ("text", "by", "says"),
    [
        ("", "prompt", "no line"),
        ("{", "prompt", "line 1: not JSON"),
        ("[]", "prompt", "line 1: does not say whose"),
        (lines({"expect": "x"}), "prompt", "allowed: one of messages, prompt, prompt_hash"),
        (lines({"prompt": "a", "prompt_hash": "b", "expect": "x"}), "prompt", "line 1: does not say whose"),
        (lines({"messages": "a", "expect": "x"}), "prompt", "line 1: does not say whose"),
        (lines({"key": 1, "expect": "x"}), "tags.case", "allowed: key, a text"),
        (lines({"key": "a"}), "tags.case", "line 1: no 'expect'"),
        (lines({"key": "a", "expect": [1]}), "tags.case", "line 1: no 'expect'"),
        (lines({"key": "a", "expect": "x"}, {"key": "a", "expect": "y"}), "tags.case", "line 2: a second line for 'a'"),
    ],
)
def test_a_bad_line_is_named(text: str, by: str, says: str) -> None:
    """A file that cannot be used is refused with line and reason, before traffic."""
    with pytest.raises(BadReference, match=says):
        read_references(text, by)


@pytest.mark.parametrize(
    ("match", "text", "verdict", "score"),
    [
        ("exact", "Paris", "pass", 1.0),
        ("exact", "paris", "fail", 0.0),
        ("normalized", " “PARIS. ” ", "pass", 1.0),
        ("normalized", "Paris, France", "fail", 0.0),
        ("fuzzy", "Pariss", "pass", 10 / 11),
        ("fuzzy", "Peru", "fail", 4 / 9),
        ("fuzzy", "x" * (MAX_FUZZY_CHARS + 1), "abstain", None),
    ],
)
def test_matches(match: Literal["exact", "normalized", "fuzzy"], text: str, verdict: str, score: float | None) -> None:
    """Exact, normalized and fuzzy matches, the ratio being the indel similarity; what is too long abstains."""
    result = compare(match, 0.9, ("Paris",), text)
    assert result.verdict == verdict
    assert result.score == (None if score is None else pytest.approx(score))


def test_numbers_keep_their_signs_and_points() -> None:
    """Normalizing makes no two different numbers equal."""
    assert len({normalized(text) for text in ("-5", "5", "3.5", "35", "5%")}) == 5


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    """For every text; and its case and its spacing do not matter."""
    once = normalized(text)
    assert normalized(once) == once
    assert normalized(f"  {text}\n") == once


@given(st.text(max_size=200), st.text(max_size=200))
def test_fuzzy_is_symmetric_between_0_and_1_and_1_for_the_same(one: str, other: str) -> None:
    """The ratio is a similarity: symmetric, bounded, 1 exactly where the normalized texts are equal."""
    there, back = compare("fuzzy", 0.9, (one,), other), compare("fuzzy", 0.9, (other,), one)
    assert there.score == back.score
    assert there.score is not None
    assert 0 <= there.score <= 1
    assert (there.score == 1) == (normalized(one) == normalized(other))


@given(st.text())
def test_any_file_is_read_or_refused(text: str) -> None:
    """No text makes reading raise anything but its own error."""
    for by in ("prompt", "tags.case"):
        with contextlib.suppress(BadReference):
            assert all(read_references(text, by).values())

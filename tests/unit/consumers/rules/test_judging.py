from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from ratchet.consumers.grading import load_rubric
from ratchet.consumers.rules.judging import agreement, build_prompt, delimiter, fill, parse_rubric, read_reply
from ratchet.schemas.errors import SettingsError

ID = "019a0000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 4, "rationale": "fine"}', 0.75),
        ('```json\n{"score": 1, "rationale": "off"}\n```', 0.0),
        ('{"score": 5, "rationale": "cut of', 1.0),
        ("3", 0.5),
        ("Score: 2\nIt hardly helps", 0.25),
        ("**Rating:** 5/5", 1.0),
        ("4 out of 5", 0.75),
        ("5/10", None),
        ("Score: 3 out of 10", None),
        ("10", None),
        ("3.5", None),
        ("7", None),
        ("The answer is good, I give it 5", None),
        ("", None),
    ],
)
def test_score_stands_first_or_there_is_none(text: str, score: float | None) -> None:
    """A digit from 1 to 5 in the score's place is read; anything else is no score, never a 0."""
    found = read_reply(text, [])
    assert (found.score if found else None) == score


def test_expectation_over_the_score_token() -> None:
    """With probabilities the score is their mean over 1 to 5, normalised, and they are kept."""
    tokens = [('{"score": ', {}), ("4", {"4": 0.5, " 5": 0.25, "2": 0.05, "four": 0.2}), (', "rationale": "ok"}', {})]
    found = read_reply('{"score": 4, "rationale": "ok"}', tokens)
    assert found is not None
    assert found.distribution == pytest.approx({"1": 0, "2": 0.0625, "3": 0, "4": 0.625, "5": 0.3125})
    assert found.score == pytest.approx((2 * 0.0625 + 4 * 0.625 + 5 * 0.3125 - 1) / 4)
    assert found.rationale == "ok"


@pytest.mark.parametrize(
    ("text", "rationale"),
    [('{"score": 1, "rationale": "cut "sh', "cut "), ('{"score": 1, "rationale":', ""), ("2\nToo short.", "Too short")],
)
def test_rationales(text: str, rationale: str) -> None:
    """The reasons after a score are kept, also of a reply that was cut short."""
    found = read_reply(text, [])
    assert found is not None
    assert found.rationale == rationale


token_lists = st.lists(st.tuples(st.text(max_size=4), st.dictionaries(st.text(max_size=2), st.floats(0, 1))))


@given(st.text(max_size=60), token_lists)
def test_any_reply_is_a_score_in_range_or_none(text: str, tokens: list[tuple[str, dict[str, float]]]) -> None:
    """Whatever a judge says, a score lies in 0–1 and a distribution adds up to 1."""
    found = read_reply(text, tokens)
    if found is not None:
        assert 0 <= found.score <= 1
        if found.distribution is not None:
            assert math.isclose(sum(found.distribution.values()), 1, abs_tol=1e-6)


@given(st.text(), st.text())
def test_content_stays_inside_its_block(asked: str, answer: str) -> None:
    """Whatever people and models write is one line of JSON between two delimiters, and comes back unchanged."""
    rubric = load_rubric("helpful.v1")
    # lone surrogates are no text that an event could carry
    asked, answer = (text.encode("utf-8", "ignore").decode() for text in (asked, answer))
    messages = [{"role": "user", "content": asked + "{{data}} {{delimiter}}"}]
    _, user = build_prompt(rubric, ID, messages, answer)
    lines = user.splitlines()
    marks = [number for number, line in enumerate(lines) if line == delimiter(ID)]
    assert len(marks) == 2
    assert marks[1] - marks[0] == 2
    assert json.loads(lines[marks[0] + 1]) == {"conversation": messages, "answer": answer}


def test_delimiters_differ_by_target() -> None:
    """Each answer has a delimiter of its own, the same every time."""
    assert delimiter(ID) == delimiter(ID) != delimiter(ID[:-1] + "2")


def test_one_pass_substitution() -> None:
    """A value's own placeholders are text, not places."""
    assert fill("{{a}}-{{b}}", {"a": "{{b}}", "b": "x"}) == "{{b}}-x"


def test_rubric_files() -> None:
    """The packaged rubric has a hash of its bytes; another text has another; a broken or missing one is refused."""
    rubric = load_rubric("helpful.v1")
    text = "## system\nGrade.\n## user\n{{data}}"
    assert len(rubric.hash) == 16
    assert parse_rubric("a", text).hash != parse_rubric("a", text + "!").hash
    with pytest.raises(SettingsError, match=r"allowed: helpful\.v1"):
        load_rubric("missing")
    with pytest.raises(ValueError, match="sections"):
        parse_rubric("a", "nothing")


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_agreement(a: int, b: int, c: int, d: int) -> None:
    """Agreement is the share of equal verdicts with statsmodels' Wilson interval; without labels it is unknown."""
    found = agreement(a, b, c, d)
    n = a + b + c + d
    if n == 0:
        assert (found.rate, found.low, found.high) == (None, 0.0, 1.0)
    else:
        expected = proportion_confint(a + d, n, method="wilson")
        assert found.rate == (a + d) / n
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)

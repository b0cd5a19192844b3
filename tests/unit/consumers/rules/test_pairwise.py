from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.grading import load_rubric
from ratchet.consumers.rules import pairwise
from ratchet.consumers.rules.pairwise import Order, Outcome, Said

ORDERS = pairwise.ORDERS
outcomes = st.sampled_from(["win", "tie", "loss"])


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ('{"verdict": "A", "rationale": "shorter"}', "A"),
        ('```json\n{"verdict": "B"}', "B"),
        ("C", "C"),
        ("**B**", "B"),
        ("[[A]]", "A"),
        ("A\nbecause", "A"),
        ("verdict: B.", "B"),
        ("A lovely answer", None),
        ("Both are fine", None),
        ('{"rationale": "A", "verdict": "B"}', None),
        ("", None),
        ("I pick B", None),
        ("D", None),
    ],
)
def test_the_verdict_stands_first_or_there_is_none(reply: str, letter: str | None) -> None:
    """Only the judge's own first word counts; prose that begins with a letter and a verdict further on do not."""
    meaning = {"A": "win", "B": "loss", "C": "tie", None: None}
    said = pairwise.read_reply(reply, [], "candidate-first")
    assert (said.outcome if said else None) == meaning[letter]
    turned = pairwise.read_reply(reply, [], "candidate-second")
    assert (turned.outcome if turned else None) == {"A": "loss", "B": "win"}.get(letter or "", meaning[letter])


def test_expectation_over_the_verdict_token() -> None:
    """Where probabilities are given the order's score is P(win) + ½·P(tie), and the likeliest is the verdict."""
    tokens = [
        ('{"', {}),
        ("verdict", {}),
        ('":', {}),
        (' "', {}),
        ("A", {"A": 0.3, " B": 0.3, "B": 0.2, "C": 0.1, "x": 0.1}),
    ]
    said = pairwise.read_reply('{"verdict": "A', tokens, "candidate-first")
    assert said is not None
    assert said.distribution is not None
    assert said.distribution == pytest.approx({"win": 0.3 / 0.9, "loss": 0.5 / 0.9, "tie": 0.1 / 0.9})
    assert said.outcome == "loss"
    assert said.score == pytest.approx((0.3 + 0.05) / 0.9)
    wide = pairwise.read_reply('"A"}', [('"A"}', {'"A"}': 1.0})], "candidate-first")
    assert wide is not None
    assert wide.distribution is None
    with pytest.raises(ValueError, match="NaN"):
        pairwise.read_reply("A", [("A", {"A": float("nan")})], "candidate-first")


@given(outcomes, outcomes)
def test_orders_that_disagree_are_a_tie(first: Outcome, second: Outcome) -> None:
    """Both orders count alike: what they agree on is the word, else a tie; their verdicts are kept in the reason."""
    word = pairwise.combine(Said(first, None, ""), Said(second, None, ""))
    assert word.outcome == (first if first == second else "tie")
    assert word.outcome == pairwise.combine(Said(second, None, ""), Said(first, None, "")).outcome
    assert f"candidate-first: {first}; candidate-second: {second}" in word.rationale


def test_a_judge_that_prefers_a_place_gives_a_tie() -> None:
    """A judge that always says A says nothing."""
    said = [pairwise.read_reply("A", [("A", {"A": 0.9, "B": 0.1})], order) for order in ORDERS]
    assert said[0]
    assert said[1]
    word = pairwise.combine(said[0], said[1])
    assert (word.outcome, word.distribution) == ("tie", pytest.approx({"win": 0.5, "tie": 0.0, "loss": 0.5}))


@pytest.mark.parametrize("order", ORDERS)
def test_both_answers_are_one_line_of_json(order: Order) -> None:
    """The material is data between two markers in either order; the two orders differ in nothing but the places."""
    rubric = load_rubric("pairwise.v1")
    _, user = pairwise.build_prompt(rubric, "t", [{"role": "user", "content": "q\n"}], "mine\u2028", "theirs", order)
    lines = user.splitlines()
    assert lines[0] == lines[2]
    assert len(lines) == 4
    data = json.loads(lines[1])
    assert data["answer_a"] == ("mine\u2028" if order == "candidate-first" else "theirs")
    assert sorted(data) == ["answer_a", "answer_b", "conversation"]


def test_what_needs_no_judge() -> None:
    """Equal answers tie, a hollow answer loses to one, two hollow ones tie; tool calls are never hollow."""
    calls = [{"function": {"name": "ship"}}]
    assert pairwise.without_judge("same", "same") == Said("tie", None, "the answers are the same")
    for candidate, other, outcome in [("Solution:", "x 1", "loss"), ("x 1", "", "win"), (":", "...", "tie")]:
        said = pairwise.without_judge(candidate, other)
        assert said is not None
        assert said.outcome == outcome
    assert pairwise.without_judge("x 1", calls) is None
    assert pairwise.without_judge("one", "two") is None


def test_a_pointwise_rubric_compares_nothing() -> None:
    """A rubric that says nothing of two answers is refused by name."""
    pairwise.check_rubric(load_rubric("pairwise.v1"))
    with pytest.raises(ValueError, match=r"helpful\.v1.*answer_a"):
        pairwise.check_rubric(load_rubric("helpful.v1"))

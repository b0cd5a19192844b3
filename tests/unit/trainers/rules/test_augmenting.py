"""Rows that an LLM wrote: what is asked, what a reply comes to, and how many a mix has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.trainers.rules.augmenting import MOST, ask, mix, read, schema, shares

PAIR: dict[str, Any] = {
    "pair_id": "correction:1",
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is order 7?"}],
    "chosen": [{"role": "assistant", "content": "In Oslo."}],
    "rejected": [{"role": "assistant", "content": "No idea."}],
    "weight": 1.0,
    "confidence": 1.0,
    "source": "correction",
    "event_ids": ["e1"],
}
EXAMPLE = {key: value for key, value in PAIR.items() if key not in ("pair_id", "chosen", "rejected")} | {
    "example_id": "label:1",
    "completion": PAIR["chosen"],
}


def test_a_paraphrase_keeps_the_answers_and_the_events() -> None:
    """Only the user's last message is new; the row is marked, says what it was made from and by whom."""
    system, user = ask(PAIR, "paraphrase", "preference")
    assert '{"prompt": the user\'s message}' in system
    assert json.loads(user)["worse"] == "No idea."
    made = read('{"prompt": "Has number 7 arrived yet?"}', PAIR, "paraphrase", "preference", "llm")
    assert made["prompt"] == [PAIR["prompt"][0], {"role": "user", "content": "Has number 7 arrived yet?"}]
    assert (made["chosen"], made["rejected"], made["event_ids"]) == (PAIR["chosen"], PAIR["rejected"], ["e1"])
    assert (made["synthetic"], made["source"], made["made_from"], made["model"]) == (
        True, "synthetic:paraphrase", "correction:1", "llm",
    )  # fmt: skip
    assert made["pair_id"].startswith("synthetic:")
    assert made == read('{"prompt": "Has number 7 arrived yet?"}', PAIR, "paraphrase", "preference", "llm")


@pytest.mark.parametrize("way", ["example", "adversarial"])
def test_a_new_example_has_answers_of_its_own(way: Any) -> None:
    """A pair gets both sides, an sft row its one answer."""
    reply = json.dumps({"prompt": "Order 9 or 10?", "answer": "Which one?", "worse": "Nine."})
    pair = read(reply, PAIR, way, "preference", "llm")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("Which one?", "Nine.")
    example = read(json.dumps({"prompt": "Order 9?", "answer": "In Rome."}), EXAMPLE, way, "sft", "llm")
    assert example["completion"] == [{"role": "assistant", "content": "In Rome."}]
    assert schema(way, "sft")["required"] == ["prompt", "answer"]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Sure! Here it is", "no JSON"),
        ("[]", "not an object with exactly prompt"),
        ('{"prompt": "a", "answer": "b"}', "not an object with exactly prompt"),
        ('{"prompt": " "}', "prompt: allowed: a text"),
        ('{"prompt": 7}', "prompt: allowed: a text"),
        ('{"prompt": "Where is order 7?"}', "the one that it was made from"),
    ],
)
def test_a_reply_that_is_none_says_why(reply: str, said: str) -> None:
    """Prose, other shapes, empty texts, the same prompt again."""
    with pytest.raises(ValueError, match=said):
        read(reply, PAIR, "paraphrase", "preference", "llm")


def test_labels_are_peoples_alone() -> None:
    """Nothing is proposed for KTO: an LLM cannot say what somebody liked."""
    with pytest.raises(ValueError, match="what people liked; allowed: preference, sft"):
        ask(EXAMPLE | {"label": True}, "paraphrase", "kto")


@given(st.integers(0, 80), st.integers(0, 30), st.integers(0, 120), st.floats(0, MOST))
def test_a_mix_never_has_more_than_its_share(people: int, already: int, new: int, share: float) -> None:
    """Synthetic rows that a version has count; a larger offer contains the smaller one's choice."""
    real = [{"pair_id": f"r{n}"} for n in range(people)] + [
        {"pair_id": f"o{n}", "synthetic": True} for n in range(already)
    ]
    offered = [{"pair_id": f"s{n}", "synthetic": True} for n in range(new)]
    chosen = mix(real, offered, share)
    synthetic, of = shares([*real, *chosen])
    assert synthetic <= share * of + 1e-6 or not chosen
    assert len({row["pair_id"] for row in chosen}) == len(chosen)
    if len(chosen) < new:
        assert synthetic + 1 > share * (of + 1) - 1e-6
    with pytest.raises(ValueError, match=r"allowed: 0 to 0\.3"):
        mix(real, offered, 0.31)

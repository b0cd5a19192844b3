"""Answers that people called good or bad: who decides, what says neither, which side they are on."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.rules.votes import Answer, split_of, time_cut
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.rows import canonical
from ratchet.trainers.rules.labels import Opinion, good_alone, labelled

REQUEST = canonical({"messages": [{"role": "user", "content": "why"}]})
POLICY = PairingPolicy()


def answer(id: str = "a", **changes: Any) -> Answer:
    """An answered request."""
    about = {"at_us": 5, "prompt_hash": "h", "conversation_id": "c", "adapter": "base", "status": "ok"}
    return Answer(**({"id": id, "content": "so", "request": REQUEST} | about | changes))


def opinion(number: float, kind: str = "thumb", user: str = "u", at_us: int = 1) -> Opinion:
    """What one user says of answer a."""
    return Opinion(f"{kind}{user}{at_us}", at_us, kind, number, user, "a")  # type: ignore[arg-type]


def test_the_majority_decides_and_a_users_last_word_counts() -> None:
    """Two against one, of whom one changed their mind."""
    said = [opinion(0, user="u", at_us=1), opinion(1, user="u", at_us=2), opinion(1, user="v"), opinion(0, user="w")]
    (made,), left_out = labelled(said, {"a": answer()}, POLICY)
    assert (made.row["label"], made.row["confidence"], made.source, made.user) == (True, 2 / 3, "thumb", "u")
    assert made.row["event_ids"] == sorted(one.id for one in said)
    assert not left_out
    assert good_alone(made).row["completion"] == [{"role": "assistant", "content": "so"}]
    assert "label" not in good_alone(made).row


def test_what_says_neither_is_counted() -> None:
    """Ties, ratings in the middle, unknown and failed answers, answers without text."""
    reasons = [
        (labelled([opinion(1, user="u"), opinion(0, user="v")], {"a": answer()}, POLICY), "tie"),
        (labelled([opinion(0.5, "rating")], {"a": answer()}, POLICY), "middling"),
        (labelled([opinion(1)], {}, POLICY), "unknown_inference"),
        (labelled([opinion(1)], {"a": answer(status="error")}, POLICY), "failed_answer"),
        (labelled([opinion(1)], {"a": answer(content="")}, POLICY), "not_chat_messages"),
    ]
    assert [(made, dict(left_out)) for (made, left_out), _ in reasons] == [([], {why: 1}) for _, why in reasons]


def test_ratings_and_outcomes_are_opinions() -> None:
    """A rating at either end and a task's outcome say good or bad."""
    for number, kind, label in ((0.75, "rating", True), (0.25, "rating", False), (0.0, "outcome", False)):
        (made,), _ = labelled([opinion(number, kind)], {"a": answer()}, POLICY)
        assert (made.row["label"], made.source) == (label, kind)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 10**6)), min_size=1, max_size=40), st.floats(0, 1))
def test_a_split_by_time_holds_out_the_latest_conversations(talks: list[tuple[int, int]], share: float) -> None:
    """The conversations that begin last are held out, about as many as asked for."""
    answers = [answer(f"a{n}", conversation_id=f"c{talk}", at_us=at) for n, (talk, at) in enumerate(talks)]
    cut = time_cut(answers, share)
    begins = {f"c{talk}": min(at for other, at in talks if other == talk) for talk, _ in talks}
    if cut is None:
        assert round(share * len(begins)) == 0
        return
    held = {talk for talk, begin in begins.items() if begin >= cut}
    assert len(held) >= round(share * len(begins))
    assert max((begins[talk] for talk in begins.keys() - held), default=-1) < cut
    assert {split_of(one, 0.0, cut) for one in answers if one.conversation_id in held} <= {"holdout"}

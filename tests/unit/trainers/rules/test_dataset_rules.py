"""What goes into a dataset, on which side, under which version."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.rows import canonical
from ratchet.trainers.rules import dataset as rules
from ratchet.trainers.rules.dataset import Candidate
from ratchet.trainers.rules.selecting import select


def _pair(pair_id: str, prompt: str, chosen: str, rejected: str, conversation: str, split: str = "train") -> Candidate:
    made = rules.decode(
        {
            "pair_id": pair_id,
            "source": "preference",
            "split": split,
            "conversation_id": conversation,
            "prompt_hash": "",
            "prompt": canonical([{"role": "user", "content": prompt}]),
            "chosen": canonical([{"role": "assistant", "content": chosen}]),
            "rejected": canonical([{"role": "assistant", "content": rejected}]),
            "weight": 1.0,
            "confidence": 0.5,
            "event_ids": [],
        }
    )
    assert made is not None
    return made


WORDS = st.sampled_from(["a", "b", "c", "d"])
PAIRS = st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS, st.booleans()), max_size=25).map(
    lambda found: [
        _pair(f"p{n}", prompt, chosen, rejected, talk, "holdout" if held else "train")
        for n, (prompt, chosen, rejected, talk, held) in enumerate(found)
    ]
)


@given(PAIRS, st.frozensets(WORDS, max_size=2))
def test_nothing_is_on_two_sides(pairs: list[Candidate], asked: frozenset[str]) -> None:
    """No conversation and no prompt is in training and held out, and no evaluation prompt in training."""
    evaluation = {rules.question([{"role": "user", "content": word}]): word for word in asked}
    made = select(pairs, evaluation)
    train, held = made.train, made.holdout
    assert not {one.conversation_id for one in train} & {one.conversation_id for one in held}
    assert not {one.question for one in train} & {one.question for one in held}
    assert not {one.question for one in train} & evaluation.keys()


@given(PAIRS)
def test_every_pair_is_chosen_or_counted(pairs: list[Candidate]) -> None:
    """Rows and reasons together account for every candidate."""
    made = select(pairs, {})
    assert len(made.train) + len(made.holdout) + sum(made.dropped.values()) == len(pairs)


@given(PAIRS, st.randoms(use_true_random=False))
def test_order_of_arrival_changes_nothing(pairs: list[Candidate], order: random.Random) -> None:
    """The same pairs in any order give the same bytes, so the same version."""
    shuffled = list(pairs)
    order.shuffle(shuffled)
    one, other = select(pairs, {}), select(shuffled, {})
    assert rules.lines(c.row for c in one.train) == rules.lines(c.row for c in other.train)
    assert one.dropped == other.dropped


@given(PAIRS)
def test_no_two_rows_contradict_each_other(pairs: list[Candidate]) -> None:
    """Where two answers were each preferred to the other, neither pair is used."""
    made = select(pairs, {})
    rows = [one.row for one in made.train + made.holdout]
    said = {(canonical(row["prompt"]), canonical(row["chosen"]), canonical(row["rejected"])) for row in rows}
    assert not {(p, r, c) for p, c, r in said if c != r} & said


def test_reasons_are_named() -> None:
    """A repeated, a contradicted, a leaking and an evaluated pair are each counted under its own reason."""
    evaluated = rules.question([{"role": "system", "content": "s"}, {"role": "user", "content": "frozen"}])
    made = select(
        [
            _pair("1", "q", "good", "bad", "c1"),
            _pair("2", "q", "good", "bad", "c1"),
            _pair("3", "r", "good", "bad", "c2"),
            _pair("4", "r", "bad", "good", "c3"),
            _pair("5", "s", "good", "bad", "c4", "holdout"),
            _pair("6", "s", "fine", "bad", "c5"),
            _pair("7", "frozen", "good", "bad", "c6"),
        ],
        {evaluated: "frozen"},
    )
    assert [one.row["pair_id"] for one in made.train] == ["1"]
    assert [one.row["pair_id"] for one in made.holdout] == ["5"]
    assert made.dropped == {"contradiction": 2, "duplicate": 1, "prompt_in_evaluation": 1, "prompt_in_holdout": 1}


def test_messages_with_more_than_text_are_no_candidates() -> None:
    """A trainer of texts gets no images and no tool calls."""
    row: dict[str, Any] = {"pair_id": "1", "source": "correction", "split": "train", "conversation_id": "c"}
    row |= {"prompt_hash": "h", "weight": 1, "confidence": 1, "event_ids": [], "chosen": "yes", "rejected": "no"}
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    assert rules.decode(row | {"prompt": canonical(image)}) is None
    assert rules.decode(row | {"prompt": ""}) is None
    made = rules.decode(row | {"prompt": "plain text"})
    assert made is not None
    assert made.row["prompt"] == [{"role": "user", "content": "plain text"}]
    assert made.row["chosen"] == [{"role": "assistant", "content": "yes"}]


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_larger_subset_contains_the_smaller(one: int, other: int) -> None:
    """Training on more pairs keeps those of the run with fewer."""
    rows = [{"pair_id": f"p{n}"} for n in range(30)]
    small, large = (rules.subset(rows, most) for most in sorted((one, other)))
    assert len(small) == min(30, one, other)
    assert all(row in large for row in small)


def test_difference_names_added_removed_and_changed_pairs() -> None:
    """Two versions differ by pair ids, and by what a pair says."""
    before = [{"pair_id": "a", "weight": 1}, {"pair_id": "b", "weight": 1}]
    after = [{"pair_id": "b", "weight": 2}, {"pair_id": "c", "weight": 1}]
    assert rules.difference(before, after) == (["c"], ["a"], ["b"])


def test_moving_a_row_to_the_other_side_is_another_version() -> None:
    """The digest covers the split, the task and the kind, not only the rows."""
    one, two = b'{"pair_id":"a"}\n', b'{"pair_id":"b"}\n'
    digests = {
        rules.digest("t", "preference", one, two),
        rules.digest("t", "preference", one + two, b""),
        rules.digest("u", "preference", one, two),
        rules.digest("t", "kto", one, two),
    }
    assert len(digests) == 4

"""Pairwise judging without its plumbing: the two prompts, what a reply means, and both orders as one word.

A comparison is seen from one side, the *candidate* (in a rollout the new adapter's answer, of a preference
pair the chosen one); the *other* is what it is compared with. Asked in both orders, because judges prefer a
place as such; where the orders disagree, it is a tie (Zheng et al. 2023, "Judging LLM-as-a-Judge with
MT-Bench and Chatbot Arena", 3.4).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ratchet.consumers.rules.judging import Rubric, Tokens, place, rationale_of
from ratchet.consumers.rules.phrases import hollow

Outcome = Literal["win", "tie", "loss"]
"""Of the candidate."""
Order = Literal["candidate-first", "candidate-second"]
ORDERS: tuple[Order, Order] = ("candidate-first", "candidate-second")
VALUES: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_LETTERS: dict[Order, dict[str, Outcome]] = {
    "candidate-first": {"A": "win", "B": "loss", "C": "tie"},
    "candidate-second": {"A": "loss", "B": "win", "C": "tie"},
}

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"type": "string", "enum": ["A", "B", "C"]},
        "rationale": {"type": "string", "maxLength": 300},
    },
    "required": ["verdict", "rationale"],
    "additionalProperties": False,
}
"""What a judge replies where its endpoint can be held to a schema; the verdict comes before its reasons."""

# the verdict stands first: as the first field of an object, after a word for it, or alone; "A fine answer" is prose
_VERDICT = re.compile(
    r"""^[\s{"'*`#]*(?:(?:json)?[\s{"']*(?:verdict|winner)["'*`:=\s]*)?["'*`(\[]*"""
    r"""(?P<letter>[ABC])(?=["'*`)\].,:;}]|\s*(?:\n|$))"""
)


@dataclass(frozen=True, slots=True)
class Said:
    """A judge's reply in one order: its outcome for the candidate, the outcomes' probabilities where known, why."""

    outcome: Outcome
    distribution: dict[Outcome, float] | None
    rationale: str

    @property
    def score(self) -> float:
        """The expectation P(win) + ½·P(tie) where probabilities are known, else 1, ½ or 0."""
        if self.distribution is None:
            return VALUES[self.outcome]
        return sum(VALUES[outcome] * share for outcome, share in self.distribution.items())


def check_rubric(rubric: Rubric) -> None:
    """Refuse a rubric that is not about two answers.

    Raises:
        ValueError: it does not name both.
    """
    text = rubric.system + rubric.user
    if missing := [name for name in ("answer_a", "answer_b") if name not in text]:
        raise ValueError(f"rubric {rubric.name}: says nothing of {', '.join(missing)}; allowed: a pairwise rubric")


def build_prompt(
    rubric: Rubric, target_id: str, asked: object, candidate: object, other: object, order: Order
) -> tuple[str, str]:
    """Make the judge's system and user message for one order.

    Args:
        rubric: from `parse_rubric`.
        target_id: id of what is judged; determines the delimiter.
        asked: the messages or the prompt, as JSON values.
        candidate: the candidate's text, or its tool calls as JSON values.
        other: the same of what it is compared with.
        order: where the candidate stands.
    """
    a, b = (candidate, other) if order == "candidate-first" else (other, candidate)
    return place(rubric, target_id, {"conversation": asked, "answer_a": a, "answer_b": b})


def read_reply(text: str, tokens: Tokens, order: Order) -> Said | None:
    """Understand a judge's reply; None where no verdict stands first.

    With token probabilities the verdict is the most probable of the verdict token's alternatives "A", "B"
    and "C", normalised (a tie between the first two is a tie); without, the letter.

    Args:
        text: the reply.
        tokens: its tokens with probabilities, or nothing.
        order: where the candidate stood.

    Raises:
        ValueError: the probabilities at the verdict are no numbers.
    """
    match = _VERDICT.search(text)
    if match is None:
        return None
    meaning = _LETTERS[order]
    rationale = rationale_of(text, match.end())
    shares = _shares(tokens, match.start("letter"), match["letter"])
    if shares is None:
        return Said(meaning[match["letter"]], None, rationale)
    distribution: dict[Outcome, float] = {meaning[letter]: share for letter, share in shares.items()}
    most = max(distribution.values())
    likely = [outcome for outcome in VALUES if distribution[outcome] == most]
    return Said(likely[0] if len(likely) == 1 else "tie", distribution, rationale)


def _shares(tokens: Tokens, offset: int, letter: str) -> dict[str, float] | None:
    """Probabilities of A, B and C at the token that covers ``offset`` of the text, if they are to be had."""
    start = 0
    for token, alternatives in tokens:
        before, start = start, start + len(token)
        if start <= offset:
            continue
        if _bare(token) != letter or token.find(letter) != offset - before:
            return None  # a token of more than the letter: its alternatives are no verdicts
        if any(math.isnan(share) for share in alternatives.values()):
            raise ValueError("the probabilities at the verdict are no numbers (NaN)")
        mass = dict.fromkeys("ABC", 0.0)
        for text, share in alternatives.items():
            if _bare(text) in mass:
                mass[_bare(text)] += share
        total = sum(mass.values())
        return {one: min(1.0, share / total) for one, share in mass.items()} if total > 0 else None
    return None


def _bare(token: str) -> str:
    return token.strip(" \t\r\n\"'*`([")


def combine(first: Said, second: Said) -> Said:
    """Both orders as one word: what they agree on, else a tie; the distribution is the mean of theirs."""
    outcome: Outcome = first.outcome if first.outcome == second.outcome else "tie"
    distribution: dict[Outcome, float] | None = None
    if first.distribution is not None and second.distribution is not None:
        distribution = {one: (first.distribution[one] + second.distribution[one]) / 2 for one in VALUES}
    why = f"{ORDERS[0]}: {first.outcome}; {ORDERS[1]}: {second.outcome}"
    return Said(outcome, distribution, f"{why}. {first.rationale}".strip()[:300])


def from_samples(texts: Sequence[str], order: Order) -> Said | None:
    """Count repeated replies in one order: the commonest outcome (a tie where two are), their shares as probabilities.

    Returns:
        None where less than half of the replies have a verdict.
    """
    read = [said for text in texts if (said := read_reply(text, [], order))]
    if not read or 2 * len(read) < len(texts):
        return None
    counted = Counter(said.outcome for said in read)
    most = max(counted.values())
    common = [outcome for outcome in VALUES if counted[outcome] == most]
    outcome = common[0] if len(common) == 1 else "tie"
    shares: dict[Outcome, float] = {one: counted[one] / len(read) for one in VALUES}
    rationale = next((said.rationale for said in read if said.outcome == outcome), "")
    return Said(outcome, shares, rationale)


def sure(said: Said | None) -> float:
    """How sure a word is: its own probability; 0 where there is no word or no probability."""
    return 0.0 if said is None or said.distribution is None else said.distribution[said.outcome]


def panel(words: Sequence[Said | None], quorum: int | None) -> tuple[Said | None, str]:
    """A panel's word: what more than half of those that have one say, else a tie; the mean of their distributions.

    Args:
        words: of each judge, both orders taken together; None abstains.
        quorum: how many must have one; None: all.

    Returns:
        The word, or None and why there is none.
    """
    heard = [said for said in words if said is not None]
    needed = len(words) if quorum is None else quorum
    if len(heard) < max(2, needed):
        return None, f"{len(words) - len(heard)} of {len(words)} judges abstained; {needed} words are needed"
    counted = Counter(said.outcome for said in heard)
    outcome, most = counted.most_common(1)[0]
    told = [said.distribution for said in heard if said.distribution is not None]
    mixed: dict[Outcome, float] | None = None
    if len(told) == len(heard):
        mixed = {one: sum(shares[one] for shares in told) / len(told) for one in VALUES}
    why = ", ".join(f"{n} {one}" for one, n in sorted(counted.items()))
    return Said(outcome if 2 * most > len(heard) else "tie", mixed, why), ""


def without_judge(candidate: object, other: object) -> Said | None:
    """What needs no judge: an answer that is none loses to one, and equal answers are a tie; else None.

    Judges reward hollow answers (`phrases.hollow`), so they are not shown any.
    """
    if candidate == other:
        return Said("tie", None, "the answers are the same")
    empty, beside = _hollow(candidate), _hollow(other)
    if empty and beside:
        return Said("tie", None, f"neither is an answer: {empty}; {beside}")
    if empty:
        return Said("loss", None, f"the candidate's is no answer: {empty}")
    if beside:
        return Said("win", None, f"the other is no answer: {beside}")
    return None


def _hollow(answer: object) -> str | None:
    if isinstance(answer, str) or answer is None:
        return hollow(answer or "")
    return None  # tool calls


def as_shares(distribution: Mapping[Outcome, float] | None) -> dict[str, float] | None:
    """A distribution as score events carry it."""
    return None if distribution is None else {str(outcome): share for outcome, share in distribution.items()}

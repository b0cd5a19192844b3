"""What pairing starts from: votes and answers, whose votes count, and which split an answer is in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from ratchet.consumers.rules.sampling import position

Kind = Literal["correction", "preference", "thumb"]
KINDS: tuple[Kind, ...] = ("correction", "preference", "thumb")


@dataclass(frozen=True, slots=True)
class Vote:
    """One feedback event that can make a pair; ``number`` is a thumb's 0 or 1, ``text`` a correction or a preference.

    ``at_us`` counts microseconds since 1970. ``inference_id`` is None where only a conversation was named.
    """

    id: str
    at_us: int
    kind: Kind
    inference_id: str | None
    compared_with: str | None
    number: float | None
    text: str
    user: str
    conversation_id: str = ""

    @property
    def target(self) -> str:
        """The id of the row that this vote is about."""
        if self.inference_id is None:
            return f"{self.kind}:{self.id}"
        if self.kind == "preference":
            return f"preference:{':'.join(sorted((self.inference_id, self.compared_with or '')))}"
        return f"{self.kind}:{self.inference_id}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What pairing needs of one inference; ``request`` is the request as JSON text."""

    id: str
    at_us: int
    prompt_hash: str
    conversation_id: str
    adapter: str
    status: str
    content: str
    request: str


Capped = Collection[tuple[str, str]]
"""(user, target) whose votes do not count, because the user had reached the cap before."""


def split_of(answer: Answer, holdout: float, since_us: int | None = None) -> str:
    """``train`` or ``holdout``, decided before any pairing.

    Args:
        answer: the answer.
        holdout: the share that is held out, by a hash of the conversation (of the prompt where there is none).
        since_us: instead, everything from this instant on is held out (microseconds since 1970).
    """
    if since_us is not None:
        return "holdout" if answer.at_us >= since_us else "train"
    return "holdout" if position(answer.conversation_id or answer.prompt_hash, "split") < holdout else "train"


def time_cut(answers: Iterable[Answer], holdout: float) -> int | None:
    """Since when ``holdout`` of the conversations begin, in microseconds since 1970; None where none is to be held out.

    A conversation begins with the first of these answers; without one each prompt counts as one.
    """
    begins: dict[str, int] = {}
    for answer in answers:
        talk = answer.conversation_id or answer.prompt_hash
        begins[talk] = min(answer.at_us, begins.get(talk, answer.at_us))
    held = round(holdout * len(begins))
    return sorted(begins.values())[-held] if held else None


def over_cap(votes: Iterable[Vote], cap: int) -> set[tuple[str, str]]:
    """Which (user, target) are beyond the cap: a user's first ``cap`` targets count, by first vote.

    Needs all votes of the users it is asked about. Votes without a user cannot be told apart
    and are not capped.
    """
    first: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for vote in votes:
        if vote.user:
            targets, moment = first[vote.user], (vote.at_us, vote.id)
            targets[vote.target] = min(moment, targets.get(vote.target, moment))
    return {
        (user, target)
        for user, targets in first.items()
        if len(targets) > cap
        for target in sorted(targets, key=targets.__getitem__)[cap:]
    }

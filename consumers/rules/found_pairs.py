"""Pairs that nobody voted for: answers asked for again, tasks that failed, and shadow answers that a judge compared.

Each is found by a question to ClickHouse and becomes one row under its own id: finding it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ratchet.consumers.rules.pair_texts import failed, message_of, prompt_of, texts_problem
from ratchet.consumers.rules.votes import Answer, split_of
from ratchet.schemas.pairing_policy import PairingPolicy, PairSource

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Two answers of which one is better, and the events that show it: feedback, scores, the inferences themselves."""

    source: PairSource
    chosen: str
    rejected: str
    at_us: int
    event_ids: tuple[str, ...]
    confidence: float = 1.0
    user: str = ""
    reason: str = ""
    """Why it is no pair, where what is known says so."""

    @property
    def pair_id(self) -> str:
        """One for each answer that lost: it is rejected once by each source."""
        return f"{self.source}:{self.rejected}"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a judge said of a shadow answer beside production's, both orders taken together.

    Args:
        shadow, served: the candidate's answer and production's, by id.
        score_id: of the score event.
        judge: who said it.
        score: 1 the shadow answer is better, 0 production's, ½ a tie or orders that disagree.
        sure: the probability of the word; None where the judge gives none.
        at_us: when it was said.
        user: of the mirrored request.
    """

    shadow: str
    served: str
    score_id: str
    judge: str
    score: float
    sure: float | None
    at_us: int
    user: str = ""


@dataclass(frozen=True, slots=True)
class Graded:
    """An answer with the latest word on it: its task's outcome, or a user's rating."""

    id: str
    good: bool
    at_us: int
    event_id: str
    user: str = ""


def graded_pairs(source: PairSource, graded: Iterable[Graded]) -> list[Found]:
    """Pair the good answers to one prompt with the bad ones, each used once, the earliest first.

    Args:
        source: what graded them.
        graded: all answers to one prompt in one split that have a grade.

    Returns:
        One for each bad answer, without a counterpart no pair, which says so; and for each good one a word that
        withdraws the pair in which it was the worse one before its grade changed.
    """
    ordered = sorted(graded, key=lambda one: (one.at_us, one.id))
    good, bad = ([one for one in ordered if one.good is wanted] for wanted in (True, False))
    pairs = []
    for lost, won in zip_longest(bad, good[: len(bad)]):
        events = (lost.event_id, won.event_id) if won else (lost.event_id,)
        at_us = max(lost.at_us, won.at_us) if won else lost.at_us
        pairs.append(
            Found(
                source,
                won.id if won else "",
                lost.id,
                at_us,
                events,
                user=lost.user,
                reason="" if won else "no_counterpart",
            )
        )
    gone = [Found(source, "", one.id, one.at_us, (one.event_id,), user=one.user, reason="withdrawn") for one in good]
    return pairs + gone


def judged_pairs(opinions: Iterable[Opinion], trusted: frozenset[str] | None, policy: PairingPolicy) -> list[Found]:
    """Pairs of the shadow answers of which every judge that may say so is sure, and all say the same.

    Args:
        opinions: in any order.
        trusted: judges whose word counts; None: all.
        policy: how sure is sure.
    """
    by_shadow: dict[str, list[Opinion]] = {}
    for one in opinions:
        if trusted is None or one.judge in trusted:
            by_shadow.setdefault(one.shadow, []).append(one)
    found = []
    for said in by_shadow.values():
        words = {one.score for one in said}
        sure = [one.sure for one in said]
        if len(words) != 1 or not words <= {0.0, 1.0} or not _all_sure(sure, policy.min_judge_confidence):
            continue
        first = min(said, key=lambda one: (one.at_us, one.score_id))
        won, lost = (first.shadow, first.served) if first.score == 1.0 else (first.served, first.shadow)
        ids = (*sorted(one.score_id for one in said), first.shadow, first.served)
        confidence = min(value for value in sure if value is not None)
        found.append(Found("shadow", won, lost, first.at_us, ids, confidence, first.user))
    return found


def _all_sure(sure: Sequence[float | None], least: float) -> bool:
    return all(value is not None and value >= least for value in sure)


def row_of(found: Found, answers: Mapping[str, Answer], policy: PairingPolicy) -> Row:
    """The row of pairs_log, as `pairing.derive` gives them: built, or dropped with a reason.

    Args:
        found: the two answers.
        answers: by id; a shadow answer has the conversation and prompt of the request that it copies.
        policy: holdout share, lengths and weights.

    Its ``version`` is the first; whoever knows the row that stands gives it the next one.
    """
    chosen, rejected = answers.get(found.chosen), answers.get(found.rejected)
    known = rejected or chosen
    row: Row = {
        "pair_id": found.pair_id,
        "at_us": found.at_us,
        "source": found.source,
        "status": "dropped",
        "reason": found.reason,
        "split": split_of(known, policy.holdout, policy.since_us) if known else "",
        "conversation_id": known.conversation_id if known else "",
        "user": found.user,
        "prompt_hash": known.prompt_hash if known else "",
        "prompt": "",
        "chosen": "",
        "rejected": "",
        "chosen_adapter": "",
        "rejected_adapter": "",
        "weight": policy.weight(found.source),
        "confidence": found.confidence,
        "votes": 0,
        "event_ids": sorted(found.event_ids),
        "version": 1,
    }
    if found.reason:
        return row
    if chosen is None or rejected is None:
        return row | {"reason": "unknown_inference"}
    if split_of(chosen, policy.holdout, policy.since_us) != split_of(rejected, policy.holdout, policy.since_us):
        return row | {"reason": "cross_split"}
    problem = failed(chosen) or failed(rejected)
    problem = problem or texts_problem(chosen.content, rejected.content, rejected.request, policy)
    if problem:
        return row | {"reason": problem}
    return row | {
        "status": "built",
        "prompt": prompt_of(rejected.request),
        "chosen": message_of(chosen.content),
        "rejected": message_of(rejected.content),
        "chosen_adapter": chosen.adapter,
        "rejected_adapter": rejected.adapter,
    }

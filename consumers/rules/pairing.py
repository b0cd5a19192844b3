"""Feedback to preference pairs: one pure rule for the event-by-event path and the bulk path.

Feedback falls into groups that nothing outside them can change:

- ``correction``: all corrections of one answer; the latest is chosen, the answer is rejected.
- ``preference``: all votes between the same two answers; more than half of them decides.
- ``thumb``: all thumbs on answers to the same prompt; an upvoted answer is chosen over a
  downvoted one, each used once.

Every group gives one row for each candidate (a corrected answer, two compared answers, an
answer with thumbs) under an id that stays the same whatever arrives later, so a later vote
replaces the row. The holdout split is decided for each answer before any pairing, and no
pair crosses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.consumers.rules.pair_texts import answer_problem, failed, message_of, prompt_of, texts_problem
from ratchet.consumers.rules.votes import Answer, Capped, Kind, Vote, split_of
from ratchet.schemas.pairing_policy import PairingPolicy

Row = dict[str, Any]


@dataclass(slots=True)
class _Draft:
    """A row in the making; `built` and `dropped` finish it."""

    pair_id: str
    source: Kind
    votes: list[Vote]
    deciding: list[Vote]
    evidence: int
    split: str = ""
    answer: Answer | None = None
    confidence: float = 1.0
    extra_events: list[str] = field(default_factory=list)
    weight: float = 1.0

    def _row(self, status: str, reason: str) -> Row:
        last = max(self.deciding or self.votes, key=_moment)
        known = self.answer
        return {
            "pair_id": self.pair_id,
            "at_us": max(vote.at_us for vote in self.votes),
            "source": self.source,
            "status": status,
            "reason": reason,
            "split": self.split,
            "conversation_id": known.conversation_id if known else last.conversation_id,
            "user": last.user,
            "prompt_hash": known.prompt_hash if known else "",
            "prompt": "",
            "chosen": "",
            "rejected": "",
            "chosen_adapter": "",
            "rejected_adapter": "",
            "weight": self.weight,
            "confidence": self.confidence,
            "votes": len(self.deciding),
            "event_ids": sorted({vote.id for vote in self.votes} | set(self.extra_events)),
            "version": self.evidence,
        }

    def dropped(self, reason: str) -> Row:
        return self._row("dropped", reason)

    def merged(self) -> Row:
        return self._row("merged", "counterpart")

    def built(self, chosen: str, rejected: str, adapters: tuple[str, str]) -> Row:
        assert self.answer is not None
        return self._row("built", "") | {
            "prompt": prompt_of(self.answer.request),
            "chosen": message_of(chosen),
            "rejected": message_of(rejected),
            "chosen_adapter": adapters[0],
            "rejected_adapter": adapters[1],
        }


def derive(votes: Iterable[Vote], answers: Mapping[str, Answer], capped: Capped, policy: PairingPolicy) -> list[Row]:
    """Derive the rows of whole groups.

    Args:
        votes: all pair-making feedback of each group, in any order, repeats allowed.
        answers: the inferences they name, by id; one that is missing is unknown so far.
        capped: from `over_cap`.
        policy: holdout share and lengths.

    Returns:
        Rows of pairs_log by pair id, less task (and with ``at_us`` for at): status ``built``,
        ``dropped`` with a reason, or ``merged`` (an upvoted answer that another row uses as its
        chosen side). ``version`` is the number of votes and answers that the group had, so
        it grows with whatever arrives.
    """
    unique = {vote.id: vote for vote in votes}
    by_target: dict[str, list[Vote]] = defaultdict(list)
    for vote in sorted(unique.values(), key=_moment):
        by_target[vote.target].append(vote)
    rows: list[Row] = []
    prompts: dict[tuple[str, str], list[_Draft]] = defaultdict(list)
    for target, group in by_target.items():
        counted = _latest_by_user([vote for vote in group if (vote.user, target) not in capped])
        ids = {i for vote in group for i in (vote.inference_id, vote.compared_with) if i is not None}
        known = sum(1 for i in ids if i in answers)
        kind = group[0].kind
        draft = _Draft(target, kind, group, counted, len(group) + known, weight=policy.weight(kind))
        first = group[0]
        draft.answer = answers.get(first.inference_id or "")
        if draft.answer is not None:
            draft.split = split_of(draft.answer, policy.holdout, policy.since_us)
        if first.kind == "thumb" and draft.answer is not None:
            prompts[draft.answer.prompt_hash, draft.split].append(draft)
        elif not counted:
            rows.append(draft.dropped("user_cap"))
        elif first.kind == "correction":
            rows.append(_correction(draft, policy))
        elif first.kind == "preference":
            rows.append(_preference(draft, answers, policy))
        else:
            rows.append(draft.dropped("unknown_inference"))
    for drafts in prompts.values():
        rows.extend(_thumbs(drafts, policy))
    return sorted(rows, key=lambda row: str(row["pair_id"]))


def _moment(vote: Vote) -> tuple[int, str]:
    return vote.at_us, vote.id


def _latest_by_user(votes: Sequence[Vote]) -> list[Vote]:
    """One vote a user, the latest; votes without a user all count."""
    latest: dict[str, Vote] = {}
    for vote in votes:
        latest[vote.user or f"\x1f{vote.id}"] = vote
    return sorted(latest.values(), key=_moment)


def _correction(draft: _Draft, policy: PairingPolicy) -> Row:
    answer = draft.answer
    if answer is None:
        return draft.dropped("unknown_inference")
    correction = draft.deciding[-1].text
    draft.deciding = draft.deciding[-1:]
    reason = failed(answer) or texts_problem(correction, answer.content, answer.request, policy)
    return draft.dropped(reason) if reason else draft.built(correction, answer.content, ("", answer.adapter))


def _preference(draft: _Draft, answers: Mapping[str, Answer], policy: PairingPolicy) -> Row:
    first = draft.votes[0]
    if first.inference_id is None or first.compared_with is None:
        return draft.dropped("unknown_inference")
    one, other = sorted((first.inference_id, first.compared_with))
    count = {one: 0, other: 0}
    for vote in draft.deciding:
        if vote.text != "tie" and vote.inference_id is not None and vote.compared_with is not None:
            count[vote.inference_id if vote.text == "this" else vote.compared_with] += 1
    winner = one if count[one] >= count[other] else other
    draft.confidence = count[winner] / len(draft.deciding)
    a, b = answers.get(one), answers.get(other)
    draft.answer = a or b
    draft.split = split_of(draft.answer, policy.holdout, policy.since_us) if draft.answer else ""
    if 2 * count[winner] <= len(draft.deciding):
        return draft.dropped("tie")
    if a is None or b is None:
        return draft.dropped("unknown_inference")
    chosen, rejected = (a, b) if winner == one else (b, a)
    if a.prompt_hash != b.prompt_hash:
        return draft.dropped("different_prompt")
    if split_of(a, policy.holdout, policy.since_us) != split_of(b, policy.holdout, policy.since_us):
        return draft.dropped("cross_split")
    reason = failed(a) or failed(b) or texts_problem(chosen.content, rejected.content, a.request, policy)
    return draft.dropped(reason) if reason else _built(draft, chosen, rejected)


def _thumbs(drafts: list[_Draft], policy: PairingPolicy) -> list[Row]:
    """Rows of all thumbed answers to one prompt in one split: each downvoted one seeks an upvoted one."""
    evidence = sum(draft.evidence for draft in drafts)
    rows: list[Row] = []
    ups: list[_Draft] = []
    downs: list[_Draft] = []
    for draft in sorted(drafts, key=lambda draft: (draft.answer.at_us if draft.answer else 0, draft.pair_id)):
        assert draft.answer is not None
        draft.evidence = evidence
        if not draft.deciding:
            rows.append(draft.dropped("user_cap"))
            continue
        up = sum(1 for vote in draft.deciding if vote.number)
        down = len(draft.deciding) - up
        draft.confidence = max(up, down) / len(draft.deciding)
        reason = "tie" if up == down else answer_problem(draft.answer, policy)
        if reason:
            rows.append(draft.dropped(reason))
        else:
            (ups if up > down else downs).append(draft)
    for draft in downs:
        assert draft.answer is not None
        lost = draft.answer.content.strip()
        match = next((up for up in ups if up.answer and up.answer.content.strip() != lost), None)
        if match is None:
            rows.append(draft.dropped("identical" if ups else "no_counterpart"))
            continue
        ups.remove(match)
        assert match.answer is not None
        rows.append(match.merged())
        draft.extra_events = [vote.id for vote in match.votes]
        draft.confidence *= match.confidence
        draft.deciding = draft.deciding + match.deciding
        rows.append(_built(draft, match.answer, draft.answer))
    rows.extend(up.dropped("no_counterpart") for up in ups)
    return rows


def _built(draft: _Draft, chosen: Answer, rejected: Answer) -> Row:
    draft.answer = rejected
    return draft.built(chosen.content, rejected.content, (chosen.adapter, rejected.adapter))

"""What goes into a preference dataset, on which side, and under which version; pure.

Everything is decided by content: the same pairs give the same rows in the same order, so the
same version. No conversation, no prompt and no evaluation question is on two sides.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ratchet.schemas.rows import canonical

Row = dict[str, Any]
"""One line of a dataset: ``pair_id``; ``prompt, chosen, rejected`` (messages); ``weight, confidence, event_ids``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair of the table `pairs`, decoded; ``holdout`` says on which side its conversation is."""

    row: Row
    conversation_id: str
    source: str
    holdout: bool

    @property
    def question(self) -> str:
        """What was asked, less the system prompt: the identity of a prompt across sides."""
        return question(self.row["prompt"])


@dataclass(frozen=True, slots=True)
class Selection:
    """The two sides of a dataset, and what was left out of it, by reason."""

    train: tuple[Candidate, ...]
    holdout: tuple[Candidate, ...]
    dropped: dict[str, int]


def question(messages: Sequence[Mapping[str, Any]]) -> str:
    """A key that two prompts share exactly when they ask the same, whatever their system prompt."""
    asked = [
        {"role": one.get("role"), "content": one.get("content")} for one in messages if one.get("role") != "system"
    ]
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def decode(pair: Mapping[str, Any]) -> Candidate | None:
    """Turn a row of `pairs` into a candidate; None where its texts are no chat messages.

    The side is the one that was decided before pairing, so that no pair joins two sides.
    """
    prompt = _messages(pair["prompt"], "user")
    chosen, rejected = _messages(pair["chosen"], "assistant"), _messages(pair["rejected"], "assistant")
    if not prompt or len(chosen) != 1 or len(rejected) != 1:
        return None
    row = {
        "pair_id": str(pair["pair_id"]),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "weight": float(pair["weight"]),
        "confidence": float(pair["confidence"]),
        "event_ids": sorted(str(one) for one in pair["event_ids"]),
    }
    conversation = pair["conversation_id"] or pair["prompt_hash"]
    return Candidate(row, conversation, pair["source"], pair["split"] == "holdout")


def _messages(value: str, role: str) -> list[dict[str, str]]:
    """Text messages out of their JSON; a text that is no JSON list of messages is one message of ``role``.

    Empty where a message has more than text (images, tool calls): the trainer learns from texts.
    """
    try:
        decoded = orjson.loads(value)
    except orjson.JSONDecodeError:
        decoded = None
    found = [decoded] if isinstance(decoded, dict) else decoded
    if not (isinstance(found, list) and found and all(isinstance(one, dict) and "role" in one for one in found)):
        return [{"role": role, "content": value}] if value.strip() else []
    texts = [{"role": str(one["role"]), "content": one.get("content")} for one in found]
    return texts if all(isinstance(one["content"], str) for one in texts) else []


def select(candidates: Iterable[Candidate], evaluation: frozenset[str]) -> Selection:
    """Choose the rows of a dataset.

    Left out, by reason: ``duplicate`` (the same prompt, chosen and rejected again), ``contradiction``
    (two answers to a prompt, each preferred to the other: both go), ``prompt_in_evaluation`` and
    ``prompt_in_holdout`` (asked in the frozen evaluation, or on the held-out side by another conversation).

    Args:
        candidates: any order; the result does not depend on it.
        evaluation: `question` keys of the task's frozen evaluation file.
    """
    ordered = sorted(candidates, key=lambda one: str(one.row["pair_id"]))
    dropped: Counter[str] = Counter()
    directions: dict[tuple[str, frozenset[str]], set[str]] = defaultdict(set)
    for one in ordered:
        directions[_answers(one)].add(_text(one.row["chosen"]))
    held = {one.conversation_id for one in ordered if one.holdout}
    held_questions = {one.question for one in ordered if one.conversation_id in held}
    seen: set[tuple[str, str, str]] = set()
    train: list[Candidate] = []
    holdout: list[Candidate] = []
    for one in ordered:
        identity = (one.question, _text(one.row["chosen"]), _text(one.row["rejected"]))
        on_holdout = one.conversation_id in held
        if len(directions[_answers(one)]) > 1:
            dropped["contradiction"] += 1
        elif identity in seen:
            dropped["duplicate"] += 1
        elif not on_holdout and one.question in evaluation:
            dropped["prompt_in_evaluation"] += 1
        elif not on_holdout and one.question in held_questions:
            dropped["prompt_in_holdout"] += 1
        else:
            (holdout if on_holdout else train).append(one)
            seen.add(identity)
    return Selection(tuple(train), tuple(holdout), dict(sorted(dropped.items())))


def _answers(one: Candidate) -> tuple[str, frozenset[str]]:
    return one.question, frozenset((_text(one.row["chosen"]), _text(one.row["rejected"])))


def _text(messages: Sequence[Mapping[str, Any]]) -> str:
    return canonical(messages)


def lines(rows: Iterable[Row]) -> bytes:
    """Rows as canonical JSONL: sorted keys, one row a line."""
    return b"".join(canonical(row).encode() + b"\n" for row in rows)


def digest(task: str, kind: str, train: bytes, holdout: bytes) -> str:
    """SHA-256 of a dataset's whole content, in hex; its first 12 digits are the version."""
    total = hashlib.sha256()
    for part in (task.encode(), kind.encode(), train, holdout):
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def subset(rows: Sequence[Row], most: int) -> list[Row]:
    """At most ``most`` rows, chosen by the hash of their ids: a larger subset contains the smaller one."""
    if len(rows) <= most:
        return list(rows)
    chosen = sorted(rows, key=lambda row: hashlib.sha256(str(row["pair_id"]).encode()).digest())[:most]
    return sorted(chosen, key=lambda row: str(row["pair_id"]))


def difference(before: Iterable[Row], after: Iterable[Row]) -> tuple[list[str], list[str], list[str]]:
    """Ids of pairs ``(added, removed, changed)`` from one version to another, each sorted."""
    old = {str(row["pair_id"]): canonical(row) for row in before}
    new = {str(row["pair_id"]): canonical(row) for row in after}
    changed = [pair for pair in old.keys() & new.keys() if old[pair] != new[pair]]
    return sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys()), sorted(changed)

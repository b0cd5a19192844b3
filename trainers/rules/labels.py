"""Answers that people called good or bad, one by one: what KTO learns from, and SFT from the good ones.

An opinion is a thumb, an outcome, or a rating far enough from the middle; of one user and kind the latest counts.
More than half of the opinions decide.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ratchet.consumers.rules.pair_texts import prompt_of
from ratchet.consumers.rules.votes import Answer, split_of
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.trainers.rules.dataset import Candidate, messages_of

OpinionKind = Literal["thumb", "outcome", "rating"]
_ORDER: tuple[OpinionKind, ...] = get_args(OpinionKind)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One piece of feedback with a number from 0 (bad) to 1 (good), on one answer."""

    id: str
    at_us: int
    kind: OpinionKind
    number: float
    user: str
    inference_id: str


def labelled(
    opinions: Iterable[Opinion], answers: Mapping[str, Answer], policy: PairingPolicy
) -> tuple[list[Candidate], Counter[str]]:
    """Label answers by what people said of them.

    Args:
        opinions: any order, repeats allowed.
        answers: the inferences they name, by id.
        policy: how the held-out side is chosen, and from where on a rating says good or bad.

    Returns:
        Rows of the kind ``kto``, and how many answers gave none, by reason: ``unknown_inference``, ``middling``
        (ratings between the thresholds and nothing else), ``tie``, ``failed_answer``, ``not_chat_messages``.
    """
    about: dict[str, dict[str, Opinion]] = defaultdict(dict)
    for one in opinions:
        about[one.inference_id][one.id] = one
    made: list[Candidate] = []
    left_out: Counter[str] = Counter()
    for inference_id, group in sorted(about.items()):
        found = _labelled(answers.get(inference_id), list(group.values()), policy)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            made.append(found)
    return made, left_out


def good_alone(one: Candidate) -> Candidate:
    """What supervised training learns from an answer that was called good."""
    row: dict[str, Any] = {name: value for name, value in one.row.items() if name != "label"}
    row["example_id"] = f"sft:{one.id}"
    return Candidate(row, one.conversation_id, one.source, one.holdout, one.user)


def _labelled(answer: Answer | None, opinions: list[Opinion], policy: PairingPolicy) -> Candidate | str:
    if answer is None:
        return "unknown_inference"
    says = [(one, said) for one in _latest(opinions) if (said := _says(one, policy)) is not None]
    good = sum(said for _, said in says)
    if not says:
        return "middling"
    if 2 * good == len(says):
        return "tie"
    label = 2 * good > len(says)
    deciding = [one for one, said in says if said is label]
    if answer.status != "ok":
        return "failed_answer"
    prompt, completion = messages_of(prompt_of(answer.request), "user"), answer.content
    if not prompt or not completion.strip():
        return "not_chat_messages"
    conversation = answer.conversation_id or answer.prompt_hash
    source = min((one.kind for one in deciding), key=_ORDER.index)
    row = {
        "example_id": f"label:{answer.id}",
        "prompt": prompt,
        "completion": [{"role": "assistant", "content": completion}],
        "label": label,
        "weight": 1.0,
        "confidence": len(deciding) / len(says),
        "source": source,
        "conversation_id": conversation,
        "event_ids": sorted(one.id for one in opinions),
    }
    held = split_of(answer, policy.holdout, policy.since_us) == "holdout"
    return Candidate(row, conversation, source, held, max(deciding, key=_moment).user)


def _says(one: Opinion, policy: PairingPolicy) -> bool | None:
    if one.kind != "rating":
        return one.number > 0.5
    if one.number >= policy.good_rating:
        return True
    return False if one.number <= policy.bad_rating else None


def _latest(opinions: Iterable[Opinion]) -> list[Opinion]:
    latest: dict[tuple[str, str], Opinion] = {}
    for one in sorted(opinions, key=_moment):
        latest[one.kind, one.user or f"\x1f{one.id}"] = one
    return list(latest.values())


def _moment(one: Opinion) -> tuple[int, str]:
    return one.at_us, one.id

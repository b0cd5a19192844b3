"""What a dataset's rows are, and what tells versions apart; pure.

Everything is decided by content: the same feedback gives the same rows in the same order, so the same version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson

from ratchet.schemas.rows import canonical

Kind = Literal["preference", "sft", "kto"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ANSWERS: dict[str, tuple[str, ...]] = {
    "preference": ("chosen", "rejected"),
    "sft": ("completion",),
    "kto": ("completion",),
}
"""The fields of a row that hold answers, the one to be raised first; each is a list of one assistant message."""

_EVENT = re.compile(r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
Row = dict[str, Any]
"""One line of a dataset. ``prompt`` (messages), the kind's answers, for kto a ``label`` (bool); ``weight``,
``confidence``, ``source``, ``event_ids``, ``conversation_id``; and ``pair_id`` (preference) or ``example_id``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may become training data; ``holdout`` says on which side its conversation is.

    ``user`` is who decided on it: whose caps it counts towards.
    """

    row: Row
    conversation_id: str
    source: str
    holdout: bool
    user: str = ""

    @property
    def id(self) -> str:
        """The row's id."""
        return id_of(self.row)

    @property
    def question(self) -> str:
        """What was asked, less the system prompt: the identity of a prompt across sides."""
        return question(self.row["prompt"])

    @property
    def asked(self) -> str:
        """The same as text."""
        return asked(self.row["prompt"])

    @property
    def answers(self) -> list[str]:
        """The answers' texts, the one that training would raise first."""
        return [text for name in ("chosen", "completion", "rejected") for text in _texts(self.row.get(name, []))]


def kind_for(method: str) -> Kind:
    """The kind of dataset that a training method learns from; the methods with a reward take pairs."""
    match method:
        case "sft" | "kto":
            return method
        case _:
            return "preference"


def id_of(row: Mapping[str, Any]) -> str:
    """The id of a row: what it was made of, the same in every version."""
    return str(row["pair_id"] if "pair_id" in row else row["example_id"])


def made_of(row: Mapping[str, Any]) -> frozenset[str]:
    """The ids of the events that a row was made of; some of them are only in the row's own id."""
    return frozenset((*row.get("event_ids", ()), *(part for part in id_of(row).split(":") if _EVENT.match(part))))


def question(messages: Sequence[Mapping[str, Any]]) -> str:
    """A key that two prompts share exactly when they ask the same, whatever their system prompt."""
    said = [{"role": one.get("role"), "content": one.get("content")} for one in messages if one.get("role") != "system"]
    return hashlib.sha256(canonical(said).encode()).hexdigest()


def asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of a prompt, less its system prompt."""
    return "\n".join(text for one in messages if one.get("role") != "system" for text in _texts([one]))


def decode(pair: Mapping[str, Any]) -> Candidate | None:
    """Turn a row of `pairs` into a candidate; None where its texts are no chat messages.

    The side is the one that was decided before pairing, so that no pair joins two sides.
    """
    prompt = messages_of(pair["prompt"], "user")
    chosen, rejected = messages_of(pair["chosen"], "assistant"), messages_of(pair["rejected"], "assistant")
    if not prompt or len(chosen) != 1 or len(rejected) != 1:
        return None
    conversation = pair["conversation_id"] or pair["prompt_hash"]
    row = {
        "pair_id": str(pair["pair_id"]),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "weight": float(pair["weight"]),
        "confidence": float(pair["confidence"]),
        "source": str(pair["source"]),
        "conversation_id": conversation,
        "event_ids": sorted(str(one) for one in pair["event_ids"]),
    }
    return Candidate(row, conversation, pair["source"], pair["split"] == "holdout", str(pair.get("user") or ""))


def chosen_alone(pair: Candidate) -> Candidate:
    """What supervised training learns from a pair: its chosen answer."""
    row = {name: value for name, value in pair.row.items() if name not in ("pair_id", "chosen", "rejected")}
    row |= {"example_id": f"sft:{pair.id}", "completion": pair.row["chosen"]}
    return Candidate(row, pair.conversation_id, pair.source, pair.holdout, pair.user)


def messages_of(value: str, role: str) -> list[dict[str, str]]:
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


def _texts(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    return [one["content"] for one in messages if isinstance(one.get("content"), str)]


def lines(rows: Iterable[Row]) -> bytes:
    """Rows as canonical JSONL: sorted keys, one row a line."""
    return b"".join(canonical(row).encode() + b"\n" for row in rows)


def digest(task: str, kind: str, train: bytes, holdout: bytes) -> str:
    """SHA-256 of a dataset's whole content, in hex; its first 12 digits are the version."""
    total = hashlib.sha256()
    for part in (task.encode(), kind.encode(), train, holdout):
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def drawn(id: str) -> bytes:
    """A place in an order that nobody chose and that is the same everywhere; whoever cuts takes the first."""
    return hashlib.sha256(id.encode()).digest()


def subset(rows: Sequence[Row], most: int) -> list[Row]:
    """At most ``most`` rows, chosen by the hash of their ids: a larger subset contains the smaller one."""
    if len(rows) <= most:
        return list(rows)
    chosen = sorted(rows, key=lambda row: drawn(id_of(row)))[:most]
    return sorted(chosen, key=id_of)


def difference(before: Iterable[Row], after: Iterable[Row]) -> tuple[list[str], list[str], list[str]]:
    """Ids of rows ``(added, removed, changed)`` from one version to another, each sorted."""
    old = {id_of(row): canonical(row) for row in before}
    new = {id_of(row): canonical(row) for row in after}
    changed = [id for id in old.keys() & new.keys() if old[id] != new[id]]
    return sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys()), sorted(changed)

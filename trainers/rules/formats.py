"""Other tools' shapes of training data, to this project's rows and back; pure.

Reading is strict: an unknown field is refused (a misspelt ``sytem`` would otherwise vanish). Writing refuses what a
shape has no place for. Names follow TRL's documentation of dataset formats where it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.schemas.explain import explain
from ratchet.schemas.rows import canonical
from ratchet.trainers.rules.dataset import Kind, Row, id_of

Said = Annotated[str, Field(pattern=r"\S")]
Share = Annotated[float, Field(ge=0, le=1)]


class BadRecord(Exception):
    """A record that is not of its format; says which field and what is allowed."""


class NoPlace(Exception):
    """A row that a format cannot hold without losing something; says what."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Message(_Closed):
    role: Literal["system", "user", "assistant"]
    content: Said


Text = Said | Annotated[list[_Message], Field(min_length=1)]


class _Record(_Closed):
    """Fields that every format may have beside its own."""

    id: str = ""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    confidence: Share = 1.0
    source: str = ""
    conversation_id: str = ""
    user_hash: str = ""
    synthetic: bool = False


class _Instruction(_Record):
    instruction: Said
    input: str = ""
    output: Said

    def row(self) -> Row:
        asked = f"{self.instruction}\n\n{self.input}" if self.input.strip() else self.instruction
        return {"prompt": _prompt(asked), "completion": _answer(self.output)}


class _Messages(_Record):
    messages: Annotated[list[_Message], Field(min_length=2)]

    def row(self) -> Row:
        return {"prompt": _prompt(self.messages[:-1]), "completion": _answer(self.messages[-1:])}


class _Turns(_Record):
    system: Said | None = None
    user: Said
    assistant: Said

    def row(self) -> Row:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"prompt": [*system, *_prompt(self.user)], "completion": _answer(self.assistant)}


class _PromptCompletion(_Record):
    prompt: Text
    completion: Text

    def row(self) -> Row:
        return {"prompt": _prompt(self.prompt), "completion": _answer(self.completion)}


class _Unpaired(_PromptCompletion):
    label: bool

    def row(self) -> Row:
        return super().row() | {"label": self.label}


class _Preference(_Record):
    """With a prompt, or (TRL's implicit form) whole conversations that begin alike and end in one answer each."""

    prompt: Text | None = None
    chosen: Text
    rejected: Text

    @model_validator(mode="after")
    def _whole(self) -> _Preference:
        if self.prompt is None and (isinstance(self.chosen, str) or self.chosen[:-1] != list(self.rejected[:-1])):
            raise ValueError("no prompt; allowed without one: chosen and rejected are messages and begin alike")
        return self

    def row(self) -> Row:
        if self.prompt is not None:
            prompt, chosen, rejected = self.prompt, self.chosen, self.rejected
        else:
            prompt, chosen, rejected = self.chosen[:-1], self.chosen[-1:], self.rejected[-1:]
        made = {"prompt": _prompt(prompt), "chosen": _answer(chosen), "rejected": _answer(rejected)}
        if made["chosen"] == made["rejected"]:
            raise BadRecord("chosen and rejected are the same; allowed: two answers")
        return made


@dataclass(frozen=True, slots=True)
class Format:
    """A shape of training data: the kind of row that it holds, and how a row is written in it."""

    kind: Kind
    record: type[Any]
    write: Callable[[Row], dict[str, Any]]


def read_record(format_: str, record: object, ignore: frozenset[str] = frozenset()) -> tuple[Row, str]:
    """Turn a record of a file into a row.

    Args:
        format_: one of `FORMATS`.
        record: the decoded line; a field without value (null) counts as absent.
        ignore: fields that are left out.

    Returns:
        ``(row, user)``; an id that the record does not give is made of its content.

    Raises:
        BadRecord: names the field, and what is allowed.
    """
    if not isinstance(record, dict):
        raise BadRecord(f"{type(record).__name__}; allowed: an object")
    shape = FORMATS[format_]
    given = {name: value for name, value in record.items() if value is not None and name not in ignore}
    try:
        read = shape.record.model_validate(given)
    except ValidationError as error:
        raise BadRecord(explain(error)) from None
    said = read.row()
    id = read.id or f"import:{hashlib.sha256(canonical(said).encode()).hexdigest()[:24]}"
    row = said | {
        "pair_id" if shape.kind == "preference" else "example_id": id,
        "weight": read.weight,
        "confidence": read.confidence,
        "source": read.source or "import",
        "conversation_id": read.conversation_id,
        "event_ids": [],
    }
    return row | ({"synthetic": True} if read.synthetic else {}), read.user_hash


def write_record(format_: str, kind: Kind, row: Row) -> dict[str, Any]:
    """Turn a row into a record of a format; every record of a format has the same fields.

    The ids of the events stay with the version: ``id`` finds them there.

    Raises:
        NoPlace: the format has no place for something that the row says.
    """
    shape = FORMATS[format_]
    if shape.kind != kind:
        fits = ", ".join(name for name, other in FORMATS.items() if other.kind == kind)
        raise NoPlace(f"{format_} holds {shape.kind} rows, these are {kind}; allowed: rows, {fits}")
    return shape.write(row) | {
        "id": id_of(row),
        "weight": row["weight"],
        "confidence": row["confidence"],
        "source": row.get("source", ""),
        "conversation_id": row.get("conversation_id", ""),
        "synthetic": bool(row.get("synthetic", False)),
    }


def _prompt(said: str | Sequence[_Message]) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else [one.model_dump() for one in said]
    if not messages or messages[-1]["role"] != "user":
        raise BadRecord("the prompt does not end with a user's message")
    return messages


def _answer(said: str | Sequence[_Message]) -> list[dict[str, str]]:
    messages = [{"role": "assistant", "content": said}] if isinstance(said, str) else [one.model_dump() for one in said]
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadRecord("the answer is not one message of the assistant")
    return messages


def _text(row: Mapping[str, Any], name: str = "completion") -> str:
    return str(row[name][0]["content"])


def _write_instruction(row: Row) -> dict[str, Any]:
    if [one["role"] for one in row["prompt"]] != ["user"]:
        raise NoPlace("instruction has no place for a system prompt or several turns; allowed: messages")
    return {"instruction": row["prompt"][0]["content"], "input": "", "output": _text(row)}


def _write_turns(row: Row) -> dict[str, Any]:
    roles = [one["role"] for one in row["prompt"]]
    if roles not in (["user"], ["system", "user"]):
        raise NoPlace(f"turns has no place for the turns {', '.join(roles)}; allowed: messages")
    system = row["prompt"][0]["content"] if len(roles) == 2 else None
    return {"system": system, "user": row["prompt"][-1]["content"], "assistant": _text(row)}


def _fields(*names: str) -> Callable[[Row], dict[str, Any]]:
    return lambda row: {name: row[name] for name in names}


FORMATS: dict[str, Format] = {
    "instruction": Format("sft", _Instruction, _write_instruction),
    "messages": Format("sft", _Messages, lambda row: {"messages": [*row["prompt"], *row["completion"]]}),
    "turns": Format("sft", _Turns, _write_turns),
    "prompt-completion": Format("sft", _PromptCompletion, _fields("prompt", "completion")),
    "unpaired": Format("kto", _Unpaired, _fields("prompt", "completion", "label")),
    "preference": Format("preference", _Preference, _fields("prompt", "chosen", "rejected")),
}
"""instruction, input?, output · messages · system?, user, assistant · prompt, completion · and label · preference."""

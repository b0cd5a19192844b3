"""Programmatic checks of one answer, as ``ratchet.toml`` declares them: a kind each with exactly its own fields.

``docs/checks.md`` has an example of every kind. A check passes, fails, abstains (it applies and cannot say:
no score, never 0) or does not apply (no row at all).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from ratchet.schemas.events import Closed, Inference, Request, Shadow, Tags

Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
Phrase = Annotated[str, Field(pattern=r"\S")]
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*")
_BY = re.compile(r"prompt|(?:tags|params)\.\S+")


def dotted(name: str) -> str:
    """The name of a function as ``ratchet.toml`` gives it; raises ValueError where it is none."""
    if not _DOTTED.fullmatch(name):
        raise ValueError("allowed: package.module:function or package.module.function")
    return name


def _by(name: str) -> str:
    if not _BY.fullmatch(name):
        raise ValueError("allowed: prompt, tags.NAME or params.NAME")
    return name


class Answer(Closed):
    """One answer of a model, as checks see it; what a function of yours is called with. Frozen.

    ``text`` is ``""`` where the answer is tool calls alone. Times are in milliseconds. ``None`` means not
    known: an evaluation measures no latency, an answer that was not streamed has no ``ttft_ms``.
    """

    text: str
    request: Request
    task: str = ""
    adapter: str = ""
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    finish_reason: str | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    completion_tokens: int | None = None
    tags: Tags = Field(default_factory=dict)

    @classmethod
    def of(cls, event: Inference | Shadow) -> Answer | None:
        """The answer of a call; None where the call gave none (its status says so)."""
        if event.status != "ok" or event.response is None:
            return None
        return cls(
            text=event.response.content or "",
            request=event.request,
            task=event.task,
            adapter=event.adapter,
            tool_calls=event.response.tool_calls or [],
            finish_reason=event.response.finish_reason,
            latency_ms=event.latency_ms,
            ttft_ms=event.ttft_ms,
            completion_tokens=event.completion_tokens or None,  # 0: the server did not count
            tags=event.tags,
        )


class _Check(Closed):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class JsonSchemaCheck(_Check):
    """The answer is JSON, alone, that fits ``schema``."""

    kind: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any] = Field(alias="schema")


class RequiredFieldsCheck(_Check):
    """The answer is a JSON object in which ``fields`` are there and not empty."""

    kind: Literal["required_fields"] = "required_fields"
    fields: Annotated[list[Text], Field(min_length=1)]


class RegexCheck(_Check):
    """``pattern`` is found in the answer, or with ``absent`` it is not; abstains where that takes over 0.1 s."""

    kind: Literal["regex"] = "regex"
    pattern: Text
    absent: bool = False


class ReferenceCheck(_Check):
    """The answer is the expected one: ``expect`` for every prompt, or what ``file`` says of this one.

    Without a line for this prompt the check does not apply. ``exact``: the same text. ``normalized``: the same
    but for case, spacing, Unicode's spelling, quotes around it and a full stop at its end. ``fuzzy``: the
    normalized texts are at least ``threshold`` alike.
    """

    kind: Literal["reference"] = "reference"
    expect: Text | None = None
    file: Text | None = Field(None, description="JSONL, relative to ratchet.toml")
    by: Annotated[str, AfterValidator(_by)] = "prompt"
    """Which line is this request's: by what was asked, or by ``tags.NAME`` or ``params.NAME`` (the line's ``key``)."""
    match: Literal["exact", "normalized", "fuzzy"] = "normalized"
    threshold: Share = 0.9

    @model_validator(mode="after")
    def _one_source(self) -> ReferenceCheck:
        if (self.expect is None) == (self.file is None):
            raise ValueError("a reference check has exactly one of expect, file")
        if self.file is None and "by" in self.model_fields_set:
            raise ValueError("by says which line of a file is meant; allowed: only with file")
        if self.match != "fuzzy" and "threshold" in self.model_fields_set:
            raise ValueError(f"threshold says nothing with match {self.match!r}; allowed: only with 'fuzzy'")
        return self


class LengthCheck(_Check):
    """``min``–``max`` characters, words (between white space) or tokens (as the model server counted them)."""

    kind: Literal["length"] = "length"
    unit: Literal["characters", "words", "tokens"] = "characters"
    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> LengthCheck:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"min {self.min} is above max {self.max}; allowed: min <= max")
        return self


class LanguageCheck(_Check):
    """The answer is in one of ``languages`` (ISO 639, as ``en``).

    Abstains on fewer than ``min_chars`` characters and where the detector is less than ``min_confidence`` sure.
    """

    kind: Literal["language"] = "language"
    languages: Annotated[list[Text], Field(min_length=1)]
    min_chars: Annotated[int, Field(ge=1)] = 20
    min_confidence: Share = 0.7


class RefusalCheck(_Check):
    """No refusal phrase stands near the start; ``phrases`` adds the task's own, in its users' language."""

    kind: Literal["refusal"] = "refusal"
    phrases: list[Phrase] = Field(default_factory=list)


class UncertaintyCheck(_Check):
    """No phrase of hedging or not knowing is in the answer; ``phrases`` adds the task's own."""

    kind: Literal["uncertainty"] = "uncertainty"
    phrases: list[Phrase] = Field(default_factory=list)


class LatencyCheck(_Check):
    """The answer (or with ``of = "ttft"`` its first token) came within ``max_ms`` milliseconds."""

    kind: Literal["latency"] = "latency"
    max_ms: Annotated[float, Field(gt=0)]
    of: Literal["latency", "ttft"] = "latency"


class ToolCallsCheck(_Check):
    """Every tool call names a tool of the request, with JSON arguments that fit its parameters' schema.

    An answer without tool calls is not checked, or fails where they are ``required``.
    """

    kind: Literal["tool_calls"] = "tool_calls"
    required: bool = False


class FunctionCheck(_Check):
    """A function of yours says: ``package.module:function``, called with one `Answer`.

    It returns a bool, a number from 0 to 1, or one of these with a reason. Below ``threshold`` the answer
    fails. A function that raises, returns anything else or takes longer than ``timeout_s`` abstains.
    """

    kind: Literal["function"] = "function"
    function: Annotated[str, AfterValidator(dotted)]
    threshold: Share = 0.5
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0


Check = Annotated[
    JsonSchemaCheck
    | RequiredFieldsCheck
    | RegexCheck
    | ReferenceCheck
    | LengthCheck
    | LanguageCheck
    | RefusalCheck
    | UncertaintyCheck
    | LatencyCheck
    | ToolCallsCheck
    | FunctionCheck,
    Field(discriminator="kind"),
]
"""One check of a task."""

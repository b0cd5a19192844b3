"""What a completion says, whatever its endpoint left out or got wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Choice:
    """One reply: its text, its tokens with the probabilities of their alternatives, a refusal where it declined."""

    text: str
    tokens: list[tuple[str, dict[str, float]]]
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A completion: at least one choice, and the tokens it counted (0 where it did not)."""

    choices: list[Choice]
    prompt_tokens: int
    completion_tokens: int


def read_completion(done: object) -> Said | None:
    """Read what the client library made of a reply; None where it is no completion with a choice.

    The library validates nothing, so every field may be missing or of another type.
    """
    choices = [
        _choice(choice)
        for choice in _list(getattr(done, "choices", None))
        if getattr(choice, "message", None) is not None
    ]
    if not choices:
        return None
    usage = getattr(done, "usage", None)
    return Said(choices, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def _choice(choice: Any) -> Choice:
    message = choice.message
    text, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    if not refusal and getattr(choice, "finish_reason", None) == "content_filter":
        refusal = "its content filter"
    content = _list(getattr(getattr(choice, "logprobs", None), "content", None))
    tokens = [(str(item.token), _alternatives(item)) for item in content if hasattr(item, "token")]
    return Choice(text if isinstance(text, str) else "", tokens, str(refusal) if refusal else None)


def _alternatives(item: Any) -> dict[str, float]:
    tops = _list(getattr(item, "top_logprobs", None))
    return {str(top.token): _probability(getattr(top, "logprob", None)) for top in tops if hasattr(top, "token")}


def _probability(logprob: object) -> float:
    """e to the logprob; NaN where that is no number, for whoever reads it to refuse."""
    if not isinstance(logprob, int | float) or math.isnan(logprob):
        return math.nan
    return math.exp(min(0.0, logprob))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0

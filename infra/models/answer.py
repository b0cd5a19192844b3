"""A model server's answer as far as one is compared with another: its text, and how sure it was of each token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.schemas.errors import ModelError


@dataclass(frozen=True)
class Choice:
    """One token: its log-probability, and those of the likeliest tokens at its place, itself among them."""

    token: str
    logprob: float
    likeliest: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """A whole answer; no ``choices`` where the server gives no log-probabilities."""

    text: str
    choices: tuple[Choice, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The answer as `of_json` reads it."""
        tokens = [
            {"token": one.token, "logprob": one.logprob, "top_logprobs": dict(one.likeliest)} for one in self.choices
        ]
        return {"text": self.text, "tokens": tokens}

    @classmethod
    def of_json(cls, body: dict[str, Any]) -> Answer:
        """An answer that was kept; KeyError and TypeError where it is none."""
        tokens = (Choice(str(t["token"]), float(t["logprob"]), dict(t["top_logprobs"])) for t in body["tokens"])
        return cls(str(body["text"]), tuple(tokens))


def of_completion(raw: bytes, who: str) -> Answer:
    """The answer in a chat completion of OpenAI's shape.

    Raises:
        ModelError: it has none; ``who`` says whose it is.
    """
    try:
        choice = json.loads(raw)["choices"][0]
        text = choice["message"]["content"] or ""
        said = (choice.get("logprobs") or {}).get("content") or []
        choices = tuple(
            Choice(
                str(one["token"]),
                float(one["logprob"]),
                {str(other["token"]): float(other["logprob"]) for other in one.get("top_logprobs") or []},
            )
            for one in said
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise ModelError(f"{who} answered no chat completion") from None
    return Answer(str(text), choices)

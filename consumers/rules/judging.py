"""Pointwise judging without its plumbing: the prompt, the reply's meaning, what is never shown to a judge."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


Tokens = Sequence[tuple[str, Mapping[str, float]]]
"""Generated tokens, each with the probabilities of what could have stood in its place."""

LOWEST, HIGHEST = 1, 5

REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "enum": [1, 2, 3, 4, 5]},
        "rationale": {"type": "string", "maxLength": 300},
    },
    "required": ["score", "rationale"],
    "additionalProperties": False,
}
"""What a judge replies where its endpoint can be held to a schema; the score comes before its reasons."""

# the score stands first: alone, after a word for it, or as the first field of an object
_SCORE = re.compile(
    r"""^[\s{"'*`#]*(?:(?:json)?[\s{"']*(?:score|rating|grade)["'*`:=\s]*)?"""
    # one digit: not of a longer number, not of another scale (7/10, 3 out of 10)
    r"""(?P<digit>[1-5])(?![\d.]*\d)(?!["*\s]*(?:/|out\s+of)(?!\s*5(?!\d)))""",
    re.IGNORECASE,
)
_RATIONALE = re.compile(r'"rationale"\s*:\s*"(?P<text>(?:[^"\\]|\\.)*)')


@dataclass(frozen=True, slots=True)
class Rubric:
    """A versioned rubric file: its name, the hash of its bytes (16 hex) and its two templates."""

    name: str
    hash: str
    system: str
    user: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A reply's meaning: ``score`` 0–1, the probabilities of "1" to "5" where known, and the judge's reason."""

    score: float
    distribution: dict[str, float] | None
    rationale: str


def parse_rubric(name: str, text: str) -> Rubric:
    """Read a rubric file: ``## system`` and ``## user`` sections; comments above them are not sent.

    Raises:
        ValueError: a section is missing, or no place for the data.
    """
    match = re.search(r"^## system\n(?P<system>.*?)^## user\n(?P<user>.*)\Z", text, re.M | re.S)
    if match is None:
        raise ValueError(f"rubric {name}: needs the sections '## system' and '## user'")
    if "{{data}}" not in match["user"]:
        raise ValueError(f"rubric {name}: the user section needs {{{{data}}}}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Rubric(name, digest, match["system"].strip(), match["user"].strip())


def fill(template: str, values: dict[str, str]) -> str:
    """Put ``values`` into ``{{name}}`` places in one pass, so that a value's own braces stay text.

    Raises:
        KeyError: the template names a value that is not given.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def delimiter(target_id: str) -> str:
    """A line that nobody who wrote the text could have foreseen (the id is given out afterwards)."""
    digest = hashlib.sha256(f"delimiter\x1f{target_id}".encode()).hexdigest()
    return f"====={digest[:24]}====="


def build_prompt(rubric: Rubric, target_id: str, asked: object, answer: object) -> tuple[str, str]:
    """Make the judge's system and user message.

    Args:
        rubric: from `parse_rubric`.
        target_id: id of what is judged; determines the delimiter.
        asked: the messages or the prompt, as JSON values.
        answer: the answer's text, or its tool calls as JSON values.

    Returns:
        System and user text. The material is one line of JSON, so it can end neither its line nor the block.
    """
    data = json.dumps({"conversation": asked, "answer": answer}, ensure_ascii=False)
    # JSON leaves these line separators as they are
    data = data.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
    values = {"delimiter": delimiter(target_id), "data": data}
    return fill(rubric.system, values), fill(rubric.user, values)


def read_reply(text: str, tokens: Tokens) -> Judgement | None:
    """Understand a judge's reply; None where no score stands first.

    With token probabilities the score is the expectation Σ s·p(s) over the score token's
    alternatives "1"–"5", normalised; without, the digit. Both are mapped from 1–5 to 0–1.

    Args:
        text: the reply.
        tokens: its tokens with probabilities, or nothing.
    """
    match = _SCORE.search(text)
    if match is None:
        return None
    found = _RATIONALE.search(text)
    rationale = _unescape(found["text"]) if found else ""
    if "{" not in text:
        rationale = text[match.end() :].strip(" \n.,:;-\"'*`")
    distribution = _distribution(tokens, match.start("digit"), match["digit"])
    if distribution is None:
        return Judgement(_unit(float(match["digit"])), None, rationale[:300])
    expectation = sum(int(grade) * share for grade, share in distribution.items())
    return Judgement(_unit(expectation), distribution, rationale[:300])


def _unit(grade: float) -> float:
    return min(1.0, max(0.0, (grade - LOWEST) / (HIGHEST - LOWEST)))


def _unescape(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except json.JSONDecodeError:
        return text  # cut off in the middle of an escape


def _distribution(tokens: Tokens, offset: int, digit: str) -> dict[str, float] | None:
    """Probabilities of the grades at the token that covers ``offset`` of the text, if they are to be had."""
    start = 0
    covering: tuple[str, Mapping[str, float]] | None = None
    for item in tokens:
        start += len(item[0])
        if start > offset:
            covering = item
            break
    if covering is None or covering[0].strip() != digit:
        return None  # a token of more than the digit: its alternatives are no grades
    alternatives = covering[1]
    mass = dict.fromkeys("12345", 0.0)
    for text, share in alternatives.items():
        if text.strip() in mass:
            mass[text.strip()] += share
    total = sum(mass.values())
    if not total > 0:
        return None
    return {grade: min(1.0, share / total) for grade, share in mass.items()}

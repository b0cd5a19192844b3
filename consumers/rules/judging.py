"""Pointwise judging without its plumbing: the prompt, the reply's meaning, what is never shown to a judge."""

from __future__ import annotations

import hashlib
import json
import math
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
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_SEPARATORS = re.compile(r"[\x7f-\x9f\u2028\u2029]|[\ud800-\udfff]")
"""Line separators and controls above ASCII, and halves of characters, which no request could carry."""
_RATIONALE = re.compile(r'"rationale"\s*:\s*"(?P<text>(?:[^"\\]|\\.)*)')


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question of a rubric with its anchors; without a name it is the rubric's only one."""

    name: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rubric:
    """A versioned rubric file: its name, the hash of its bytes (16 hex), its two templates and its criteria."""

    name: str
    hash: str
    system: str
    user: str
    criteria: tuple[Criterion, ...] = (Criterion(),)

    def of(self, criterion: Criterion) -> str:
        """What scores call a criterion: ``name.vN/criterion``; of the rubric's only one ``name.vN``."""
        return f"{self.name}/{criterion.name}" if criterion.name else self.name


@dataclass(frozen=True, slots=True)
class Judgement:
    """A reply's meaning: ``score`` 0–1, the probabilities of "1" to "5" where known, and the judge's reason."""

    score: float
    distribution: dict[str, float] | None
    rationale: str


_SECTIONS = re.compile(
    r"^## system\n(?P<system>.*?)(?P<criteria>(?:^## criterion .*?)?)^## user\n(?P<user>.*)\Z", re.MULTILINE | re.DOTALL
)
_CRITERION = re.compile(r"^## criterion (.*)\n", re.MULTILINE)
_CRITERION_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


def parse_rubric(name: str, text: str) -> Rubric:
    """Read a rubric file: ``## system`` and ``## user``, between them a ``## criterion <name>`` for each of several.

    A criterion says what it asks and what each of the grades 1 to 5 means, a line each. Comments
    above the first section are not sent.

    Raises:
        ValueError: a section, a grade's description or a place for the data or the criterion is missing.
    """
    match = _SECTIONS.search(text)
    if match is None:
        raise ValueError(f"rubric {name}: needs the sections '## system' and '## user'")
    if "{{data}}" not in match["user"]:
        raise ValueError(f"rubric {name}: the user section needs {{{{data}}}}")
    if unknown := sorted(set(_PLACE.findall(match["system"] + match["user"])) - {"data", "delimiter", "criterion"}):
        raise ValueError(f"rubric {name}: unknown places {unknown}; allowed: data, delimiter, criterion")
    criteria = _criteria(name, match["criteria"])
    if (criteria != (Criterion(),)) != ("{{criterion}}" in match["system"] + match["user"]):
        raise ValueError(f"rubric {name}: '## criterion' sections and {{{{criterion}}}} go together")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Rubric(name, digest, match["system"].strip(), match["user"].strip(), criteria)


def _criteria(rubric: str, text: str) -> tuple[Criterion, ...]:
    parts = [part.strip() for part in _CRITERION.split(text)[1:]]
    found = tuple(Criterion(name, body) for name, body in zip(parts[::2], parts[1::2], strict=True))
    names = [one.name for one in found]
    for one in found:
        if not _CRITERION_NAME.fullmatch(one.name) or names.count(one.name) > 1:
            raise ValueError(f"rubric {rubric}: criterion {one.name!r}; allowed: each once, lower-case letters first")
        if missing := [grade for grade in "12345" if not re.search(rf"^{grade}: \S", one.text, re.MULTILINE)]:
            raise ValueError(
                f"rubric {rubric}: criterion {one.name!r} does not say what {missing} mean ('5: …' a line)"
            )
    return found or (Criterion(),)


def fill(template: str, values: dict[str, str]) -> str:
    """Put ``values`` into ``{{name}}`` places in one pass, so that a value's own braces stay text.

    Raises:
        KeyError: the template names a value that is not given.
    """
    return _PLACE.sub(lambda match: values[match[1]], template)


def delimiter(target_id: str) -> str:
    """A line that nobody who wrote the text could have foreseen (the id is given out afterwards)."""
    digest = hashlib.sha256(f"delimiter\x1f{target_id}".encode()).hexdigest()
    return f"====={digest[:24]}====="


def build_prompt(
    rubric: Rubric, target_id: str, asked: object, answer: object, criterion: Criterion = Criterion()
) -> tuple[str, str]:
    """Make the judge's system and user message.

    Args:
        rubric: from `parse_rubric`.
        target_id: id of what is judged; determines the delimiter.
        asked: the messages or the prompt, as JSON values.
        answer: the answer's text, or its tool calls as JSON values.
        criterion: one of the rubric's, where it has several.

    Returns:
        System and user text. The material is one line of JSON, so it can end neither its line nor the block.
    """
    return place(rubric, target_id, {"conversation": asked, "answer": answer}, criterion)


def place(
    rubric: Rubric, target_id: str, material: Mapping[str, object], criterion: Criterion = Criterion()
) -> tuple[str, str]:
    """Fill a rubric's templates with material that is not trusted: one line of JSON between two marker lines.

    Returns:
        System and user text. JSON escapes quotes and line feeds, so the material ends neither its line nor the block.
    """
    data = json.dumps(material, ensure_ascii=False)
    # these JSON leaves as they are, and some readers break lines at them
    data = _SEPARATORS.sub(lambda match: f"\\u{ord(match[0]):04x}", data)
    values = {"delimiter": delimiter(target_id), "data": data, "criterion": criterion.text}
    return fill(rubric.system, values), fill(rubric.user, values)


def read_reply(text: str, tokens: Tokens) -> Judgement | None:
    """Understand a judge's reply; None where no score stands first.

    With token probabilities the score is the expectation Σ s·p(s) over the score token's
    alternatives "1"–"5", normalised; without, the digit. Both are mapped from 1–5 to 0–1.

    Args:
        text: the reply.
        tokens: its tokens with probabilities, or nothing.

    Raises:
        ValueError: the probabilities at the score are no numbers.
    """
    match = _SCORE.search(text)
    if match is None:
        return None
    rationale = rationale_of(text, match.end())
    distribution = _distribution(tokens, match.start("digit"), match["digit"])
    if distribution is None:
        return Judgement(_unit(float(match["digit"])), None, rationale)
    expectation = sum(int(grade) * share for grade, share in distribution.items())
    return Judgement(_unit(expectation), distribution, rationale)


def rationale_of(text: str, end: int) -> str:
    """The reason in a reply, at most 300 characters: the object's, or what follows the word that ends at ``end``."""
    if "{" not in text:
        return text[end:].strip(" \n.,:;-\"'*`")[:300]
    found = _RATIONALE.search(text)
    return _unescape(found["text"])[:300] if found else ""


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
    if any(math.isnan(share) for share in alternatives.values()):
        raise ValueError("the probabilities at the score are no numbers (NaN)")
    mass = dict.fromkeys("12345", 0.0)
    for text, share in alternatives.items():
        if text.strip() in mass:
            mass[text.strip()] += share
    total = sum(mass.values())
    if not total > 0:
        return None
    return {grade: min(1.0, share / total) for grade, share in mass.items()}

"""Expected answers: which one is this request's, and how alike is the answer?"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from ratchet.consumers.rules.results import CheckResult, abstain, graded, verdict
from ratchet.schemas.events import Request, Tags
from ratchet.schemas.rows import prompt_hash

MAX_FUZZY_CHARS = 20_000
"""Longer texts are not compared: the time grows with the product of their lengths."""
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"'}
_TABLE = str.maketrans(_QUOTES)

Expected = Mapping[str, tuple[str, ...]]
"""The answers that are right, by request; any one of them will do."""


class BadReference(ValueError):
    """A line of a reference file that cannot be used; names it, and why."""


def read_references(lines: str, by: str) -> dict[str, tuple[str, ...]]:
    """Read a file of expected answers.

    Each line is an object with ``expect`` (a text or a list of texts) and, for ``by = "prompt"``, one of
    ``messages``, ``prompt`` or ``prompt_hash`` (as ClickHouse's column has it); otherwise ``key``.

    Args:
        lines: JSON, a line each; empty lines are skipped.
        by: the check's field.

    Raises:
        BadReference: names the line and what is wrong with it.
    """
    expected: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadReference(f"line {number}: not JSON: {error}") from None
        key, said = _line_key(value, by), value.get("expect") if isinstance(value, dict) else None
        texts = (said,) if isinstance(said, str) else tuple(said) if isinstance(said, list) else ()
        if key is None:
            wanted = "one of messages, prompt, prompt_hash" if by == "prompt" else "key, a text"
            raise BadReference(f"line {number}: does not say whose answer it is; allowed: {wanted}")
        if not texts or not all(isinstance(text, str) for text in texts):
            raise BadReference(f"line {number}: no 'expect'; allowed: a text or a list of texts")
        if key in expected:
            raise BadReference(f"line {number}: a second line for {key!r}; allowed: one, with a list in 'expect'")
        expected[key] = texts
    if not expected:
        raise BadReference("no line; allowed: at least one")
    return expected


def _line_key(value: object, by: str) -> str | None:
    if not isinstance(value, dict):
        return None
    if by != "prompt":
        key = value.get("key")
        return key if isinstance(key, str) and key else None
    asked = [name for name in ("messages", "prompt", "prompt_hash") if value.get(name)]
    if len(asked) != 1:
        return None
    if asked[0] == "prompt_hash":
        return str(value["prompt_hash"]).lower()
    try:
        return asked_hash(Request.model_validate({asked[0]: value[asked[0]]}))
    except ValueError:
        return None


def asked_hash(request: Request) -> str:
    """`prompt_hash` without the system message in front, which is the task's and not the user's."""
    messages = request.messages
    if messages and messages[0].get("role") in ("system", "developer") and len(messages) > 1:
        return prompt_hash(Request(messages=messages[1:]))
    return prompt_hash(request)


def expected_of(expected: Expected, by: str, request: Request, tags: Tags) -> tuple[str, ...] | None:
    """The right answers to a request, or None where the file has no line for it."""
    if by == "prompt":
        return expected.get(asked_hash(request)) or expected.get(prompt_hash(request))
    root, _, path = by.partition(".")
    if root == "tags":
        return expected.get(tags.get(path, ""))
    value: Any = request.params
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return expected.get(str(value)) if isinstance(value, str | int) else None


def compare(
    match: Literal["exact", "normalized", "fuzzy"], threshold: float, answers: tuple[str, ...], text: str
) -> CheckResult:
    """Compare an answer with the right ones; the likest counts.

    The fuzzy ratio is ``1 - d/(m + n)``, d the insertions and deletions between the normalized texts of m
    and n characters: the normalized indel similarity, twice the longest common subsequence over both lengths.
    """
    if match == "exact":
        return verdict(text in answers, _told(text in answers, answers))
    given, wanted = normalized(text), [normalized(answer) for answer in answers]
    if match == "normalized" or given in wanted:
        return verdict(given in wanted, _told(given in wanted, answers))
    if max(map(len, (given, *wanted))) > MAX_FUZZY_CHARS:
        return abstain(f"too long to compare; allowed: {MAX_FUZZY_CHARS} characters")
    from rapidfuzz.distance import Indel

    ratio = max(float(Indel.normalized_similarity(given, answer)) for answer in wanted)
    return graded(ratio, threshold, f"{ratio:.3f} alike, {threshold:g} asked for")


def _told(same: bool, answers: tuple[str, ...]) -> str:
    return "as expected" if same else f"expected {answers[0][:120]!r}"


def normalized(text: str) -> str:
    """Text in the one spelling in which the same answers are equal; normalizing twice changes nothing.

    Unicode's NFKC case folding, white space as single spaces, typographic quotes as plain ones; quotes around
    it all and full stops at its end go.
    """
    plain = " ".join(_folded(text).translate(_TABLE).split())
    while (shorter := plain.strip("\"' ").rstrip(".!")) != plain:
        plain = shorter
    return plain


def _folded(text: str) -> str:
    """Fold case until it is stable; Unicode's own definition takes more than one round."""
    for _ in range(4):
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        if folded == text:
            break
        text = folded
    return text

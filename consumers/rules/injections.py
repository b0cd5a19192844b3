"""Text that instructs its reader (the judge, or the model that will be trained on it) instead of answering.

Patterns, by what they try; each is narrow enough to be argued about. What they miss meets the other
defences: material reaches a judge as one line of JSON, and only the judge's own first word counts. What
they catch is flagged on scores and kept out of training data. Their share of false alarms on real text is
in docs/experiments.md.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator

from ratchet.consumers.rules.folding import fold, hidden, latin
from ratchet.consumers.rules.injection_patterns import LATIN, OTHER

LONGEST = 40_000
"""Characters that are looked at, the first and the last half of them: pairs have fewer, and the time stays bounded."""

_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_*+/|]{1,3}){6,}\w(?!\w)")
_APART = re.compile(r"(?<!\w)(?:\w[ .\-_*+/|])+\w(?!\w)")
_BASE64 = re.compile(r"(?<![\w+/=])[A-Za-z0-9+/]{24,4000}={0,2}(?![\w+/=])")
_LATIN_PATTERNS = [(name, re.compile(pattern)) for name, pattern in LATIN]
_OTHER_PATTERNS = [(name, re.compile(unicodedata.normalize("NFKC", pattern))) for name, pattern in OTHER]


def injection(text: str) -> str | None:
    """What ``text`` tries with its reader (``override``, ``asks for a score``, …), or None where it instructs nobody.

    Seen through: case, styles, lookalike letters, accents, invisible characters, letters spaced out, text in
    Unicode's tag characters, in JSON's escapes and in base64 (one layer).
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"
    if hidden(text):
        return "hidden text"
    return next((found for reading in _readings(text) if (found := _match(reading))), None)


def flag(*answers: object) -> str:
    """What a score's reason begins with where an answer instructs its judge: ``[instruction-like: …] ``."""
    found = next((tried for text in answers if isinstance(text, str) and (tried := injection(text))), None)
    return f"[instruction-like: {found}] " if found else ""


def injection_in(messages: object) -> str | None:
    """What a prompt's messages try, the app's own (system, developer) left out; None where they instruct nobody.

    Args:
        messages: a text, or messages as OpenAI's API has them; parts that are no text are not looked at.
    """
    return next((found for text in _texts(messages) if (found := injection(text))), None)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        if value.get("role") in ("system", "developer"):
            return
        yield from _texts(value.get("content"))
        yield from _texts(value.get("text"))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _readings(text: str) -> Iterator[str]:
    yield text
    if _SPACED.search(text):
        yield _APART.sub(lambda match: re.sub(r"[^\w]", "", match[0]), re.sub(r" {2,}", "\n", text))
    if "\\u" in text or "\\x" in text:
        yield re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", lambda one: chr(int(one[1] or one[2], 16)), text)
    for match in _BASE64.finditer(text):
        try:
            yield base64.b64decode(match[0], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue  # a word or a key, no text


def _match(text: str) -> str | None:
    folded = fold(text)
    if not folded.isascii():
        for name, pattern in _OTHER_PATTERNS:
            if pattern.search(folded):
                return name
    bare = latin(folded)
    return next((name for name, pattern in _LATIN_PATTERNS if pattern.search(bare)), None)

"""Personal data and secrets out of a text, and what is left can still be trained on.

A value becomes a placeholder: its kind and three letters of a keyed hash, ``[EMAIL_kqz]``. The same
value has the same placeholder in a prompt, its answer and a later correction, so a model learns to
copy it; three letters (8,000 values) keep apart what one request holds and say little about who it
was (docs/decisions/010). The hash is of the value, not of its spelling. Nothing maps it back.

JSON stays JSON, in a message too: a placeholder has no quote and no backslash, and a text that is
JSON is taken apart where a number or an escape is in the way.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import orjson

from ratchet.schemas.policies import RedactionPolicy
from ratchet.services.rules.detectors import Detector, spellings, suspects

Counts = dict[str, int]
"""Replaced values by kind."""
LETTERS = "bcdfghjklmnpqrstvwxz"
"""A placeholder's letters: no vowels, so no words."""
PLACEHOLDER = re.compile(rf"(\[[A-Z][A-Z0-9_]{{0,30}}_[{LETTERS}]{{3}}\])")
_SHORTEST = 6  # a@b.cc
_LONGEST_NAME = 16  # secrets have more
_AFTER_KEY = re.compile(r'(?<!\\)"\s*:\s*\Z')
_ROUNDS = 4  # what is left beside a placeholder is looked at again; two rounds nearly always end it


class Redactor:
    """A task's policy, ready to use; it remembers nothing of what it sees."""

    def __init__(self, policy: RedactionPolicy, *, salt: str, task: str) -> None:
        """Compile a policy.

        Args:
            policy: which kinds, the task's own patterns, and what is kept.
            salt: the installation's; with another one every placeholder changes.
            task: part of the hash, so that two tasks' placeholders do not compare.
        """
        self._secret = hashlib.blake2b(f"{salt}\0{task}".encode(), digest_size=32).digest()
        self._own = tuple(Detector(name, re.compile(pattern)) for name, pattern in policy.patterns.items())
        self._keep = frozenset(spelling for value in policy.keep for spelling in spellings(value))
        self._names = 0 if self._own else _LONGEST_NAME
        self._builtin = bool(policy.kinds)
        self._kinds = frozenset[str]([*policy.kinds, *policy.patterns])

    def redact(self, text: str) -> tuple[str, Counts]:
        """Redact one text; returns it (the same object where nothing was found) and how many values of each kind."""
        counts: Counts = {}
        return self._text(text, counts), counts

    def redact_json(self, value: Any) -> tuple[Any, Counts]:
        """Redact every text in a JSON value, keys too; numbers stay.

        Returns:
            The value (the same object where nothing was found) and how many values of each kind.
        """
        counts: Counts = {}
        if self._surely_clean(value):
            return value, counts
        redacted = self._walk(value, counts)
        return (redacted if counts else value), counts

    def _surely_clean(self, value: Any) -> bool:
        """One look at the whole value's JSON, instead of one at every text in it."""
        if self._own:
            return False
        try:
            raw = orjson.dumps(value)
        except orjson.JSONEncodeError:
            return False  # half a surrogate pair, or a number of more than 64 bits
        # A backslash of the text's own (two in JSON) may hide more: that takes a closer look.
        return b"\\\\" not in raw and not any(one.kind in self._kinds for one in suspects(raw))

    def _walk(self, value: Any, counts: Counts, *, numbers: bool = False) -> Any:
        if isinstance(value, str):
            return self._text(value, counts)
        if isinstance(value, dict):
            return {self._key(key, counts): self._walk(item, counts, numbers=numbers) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item, counts, numbers=numbers) for item in value]
        if numbers and type(value) in (int, float):
            written = json.dumps(value)
            redacted = self._text(written, counts)
            return value if redacted == written else redacted
        return value

    def _key(self, key: str, counts: Counts) -> str:
        """A field's name, as events and messages have them, is no data, whatever a task's own patterns take."""
        return key if len(key) < _LONGEST_NAME and key.isidentifier() else self._text(key, counts)

    def _text(self, text: str, counts: Counts) -> str:
        size = len(text)
        # A plain name, as most keys and roles are, and a very short text are no values of a built-in kind.
        if size < self._names and (size < _SHORTEST or text.isidentifier()):
            return text
        found: Counts = {}
        redacted = self._plain(text, found)
        if (found or "\\" in text) and text.lstrip()[:1] in ("{", "["):
            redacted, found = self._json_text(text, redacted, found)
        for kind, number in found.items():
            counts[kind] = counts.get(kind, 0) + number
        return redacted

    def _json_text(self, text: str, redacted: str, found: Counts) -> tuple[str, Counts]:
        """Take a text apart if it is JSON and plain replacing spoils it or may not see what escapes hide."""
        plain = redacted, found
        whole = _load(redacted)
        if whole is not None and "\\" not in text:
            return redacted, found
        inside = dict(found)
        if whole is None:
            whole, inside = _load(text), {}
            if whole is None:
                return redacted, found
            # What was found lies across JSON's own signs, unless the values themselves hold it.
            redacted = text
        found = dict(inside)
        try:
            whole = self._walk(whole, inside, numbers=True)
        except RecursionError:
            return plain  # nested too deeply to take apart: what is found goes, JSON or not
        if inside == found:
            return redacted, found
        # An escaped half of a surrogate pair must stay escaped: as a character UTF-8 has no bytes for it.
        escape = text.isascii() or "\\ud" in text.lower()
        return json.dumps(whole, ensure_ascii=escape), inside

    def _plain(self, text: str, found: Counts) -> str:
        for _ in range(_ROUNDS):
            before = text
            for detector in (*self._own, *(suspects(text.encode("utf-8", "replace")) if self._builtin else ())):
                if detector.kind in self._kinds:
                    text = self._replace(detector, text, found)
            if text is before:
                break
        return text

    def _replace(self, detector: Detector, text: str, found: Counts) -> str:
        """Replace one detector's values, between placeholders only: each piece is a text of its own."""
        pieces = PLACEHOLDER.split(text)
        changed = False
        for index in range(0, len(pieces), 2):
            piece, parts, done = pieces[index], [], 0
            for start, end in detector.spans(piece):
                value = piece[start:end]
                canonical = detector.canonical(value)
                if canonical in self._keep:
                    continue
                placeholder = self._placeholder(detector.kind, canonical)
                # A number in JSON becomes a text, wherever the JSON is (an answer may fence or introduce it).
                if value.isdigit() and _AFTER_KEY.search(piece[max(0, start - 8) : start]):
                    placeholder = f'"{placeholder}"'
                parts += [piece[done:start], placeholder]
                found[detector.kind] = found.get(detector.kind, 0) + 1
                done = end
            if done:
                pieces[index] = "".join([*parts, piece[done:]])
                changed = True
        return "".join(pieces) if changed else text

    def _placeholder(self, kind: str, canonical: str) -> str:
        digest = hashlib.blake2b(f"{kind}\0{canonical}".encode("utf-8", "replace"), key=self._secret, digest_size=8)
        number = int.from_bytes(digest.digest(), "big")
        letters = "".join(LETTERS[number // len(LETTERS) ** place % len(LETTERS)] for place in range(3))
        return f"[{kind.upper()}_{letters}]"


def _load(text: str) -> Any:
    """A JSON object or array; None where the text is neither."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None

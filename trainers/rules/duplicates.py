"""Texts that are nearly the same: sets of word 3-grams, found by MinHash and held to their exact overlap.

Two rows are near-duplicates where every one of their texts (prompt, answers) has a Jaccard similarity of at least
the threshold with its counterpart; Jaccard is ``|A ∩ B| / |A ∪ B|`` of the sets of 3-grams. MinHash and its index
(Broder 1997; Leskovec, Rajaraman, Ullman, *Mining of Massive Datasets*, ch. 3) only propose pairs, with few missed
and no harm in a wrong one: each is measured before anything is left out. What most rows share, an app's template
around the user's words, tells no two of them apart and is not looked at.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

Grams = NDArray[np.uint32]
"""The set of a text's 3-grams, hashed, sorted."""
Parts = Sequence[Grams]
"""The texts of one row, in the same order for every row."""

N = 3
PERMUTATIONS = 128
MISSED = 0.002
"""The share of pairs, just as alike as the threshold asks, that the index may overlook; of more alike ones fewer."""
SHARED = 0.5
"""A 3-gram in more than this share of the rows is template …"""
SHARED_FROM = 50
"""… where there are at least so many rows to tell."""

_SPACED = re.compile(r"\w+")
# a word, or one character where words are not spaced apart
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+?(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])|\w+")
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))


class _Words(dict[str, int]):
    """Each word's hash, computed once."""

    def __missing__(self, word: str) -> int:
        self[word] = found = zlib.crc32(word.encode())
        return found


class Grammar:
    """Turns texts into sets of 3-grams; the same on every machine and in every process."""

    def __init__(self) -> None:
        """Start with no word known."""
        self._words = _Words()

    def grams(self, text: str) -> Grams:
        """The 3-grams of the words of ``text``, case and punctuation aside; all its words where it has fewer than 3."""
        found = (_SPACED if text.isascii() else _TOKEN).findall(text.lower())
        ids = np.array(list(map(self._words.__getitem__, found)), dtype=np.uint64)
        if not len(ids):
            return np.empty(0, dtype=np.uint32)
        size = min(N, len(ids))
        mixed = np.zeros(len(ids) - size + 1, dtype=np.uint64)
        for at in range(size):
            mixed = (mixed ^ ids[at : len(ids) - size + 1 + at]) * _MIX[at]
            mixed ^= mixed >> np.uint64(29)
        return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


def without_template(rows: Sequence[Parts]) -> list[list[Grams]]:
    """The rows less the 3-grams that more than half of them have; unchanged where there are few rows."""
    if len(rows) < SHARED_FROM:
        return [list(parts) for parts in rows]
    sets = [_together(parts) for parts in rows]
    grams, counts = np.unique(np.concatenate(sets), return_counts=True)
    template = grams[counts > SHARED * len(rows)]
    if not len(template):
        return [list(parts) for parts in rows]
    return [[part[~np.isin(part, template, assume_unique=True)] for part in parts] for parts in rows]


def jaccard(one: Grams, other: Grams) -> float:
    """The overlap of two sets, from 0 to 1; two empty ones are the same."""
    if not len(one) and not len(other):
        return 1.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


class Near:
    """Rows among which one that is nearly the same is looked for."""

    def __init__(self, threshold: float) -> None:
        """Start empty.

        Args:
            threshold: the least Jaccard similarity of near-duplicates, 0.5–1.
        """
        self._threshold = threshold
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
        self._empty = _nothing()
        self._rows: list[Parts] = []

    def add(self, parts: Parts) -> None:
        """Add a row; one without words is like no other."""
        if (sketch := self._sketch(parts)) is not None:
            self._index.insert(len(self._rows), sketch, check_duplication=False)
            self._rows.append(parts)

    def has(self, parts: Parts) -> bool:
        """Whether a row that was added is nearly the same."""
        return self._has(parts, self._sketch(parts))

    def has_or_add(self, parts: Parts) -> bool:
        """Whether a row that was added is nearly the same; if none is, this one is added."""
        sketch = self._sketch(parts)
        if self._has(parts, sketch):
            return True
        if sketch is not None:
            self._index.insert(len(self._rows), sketch, check_duplication=False)
            self._rows.append(parts)
        return False

    def _has(self, parts: Parts, sketch: MinHash | None) -> bool:
        if sketch is None:
            return False
        return any(self._alike(parts, self._rows[number]) for number in self._index.query(sketch))

    def _alike(self, one: Parts, other: Parts) -> bool:
        return all(jaccard(a, b) >= self._threshold for a, b in zip(one, other, strict=True))

    def _sketch(self, parts: Parts) -> MinHash | None:
        grams = _together(parts)
        if not len(grams):
            return None
        made = self._empty.copy()
        made.update_batch(grams.tolist())
        return made


def bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many rows the index has: the longest rows that miss at most `MISSED`.

    Two sets of similarity ``s`` share a band with probability ``1 - (1 - s^r)^b`` (*Massive Datasets*, ch. 3.4).
    """
    fits = [r for r in range(1, PERMUTATIONS // 2 + 1) if (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED]
    return PERMUTATIONS // max(fits), max(fits)


@cache
def _nothing() -> MinHash:
    return MinHash(num_perm=PERMUTATIONS, hashfunc=int)


def _together(parts: Parts) -> Grams:
    """The union of a row's texts; the same 3-gram in two of its texts counts as two."""
    return np.unique(np.concatenate([part ^ np.uint32(0x9E3779B1 * at % 2**32) for at, part in enumerate(parts)]))

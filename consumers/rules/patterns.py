"""Regular expressions that end: a search of model output is given up after a stated time.

The engine is `regex`, which knows Python's syntax and stops at a timeout; `re` cannot be stopped, and an
engine that is always linear has neither look-around nor back-references. A pattern that takes for ever on
some answer makes its check abstain there and stops nothing else.
"""

from __future__ import annotations

from functools import lru_cache

import regex

LIMIT_S = 0.1
"""The longest one search may take, in seconds of the wall clock."""


class TooSlow(Exception):
    """A search took longer than `LIMIT_S`; says which."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> regex.Pattern[str]:
    """The pattern, made ready.

    Raises:
        regex.error: it is no regular expression.
    """
    return regex.compile(pattern)


def found(pattern: str, text: str) -> bool:
    """Whether ``pattern`` matches anywhere in ``text``.

    Raises:
        TooSlow: not known after `LIMIT_S`.
    """
    try:
        return compiled(pattern).search(text, timeout=LIMIT_S) is not None
    except TimeoutError:
        raise TooSlow(f"pattern {pattern[:80]!r} took over {LIMIT_S:g} s on {len(text)} characters") from None

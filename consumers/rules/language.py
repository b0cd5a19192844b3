"""Which language is a text in? `py3langid`: 139 languages, offline, measured in docs/experiments.md."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ratchet.consumers.rules.results import CheckResult, abstain, verdict

WINDOW = 1_000
"""Characters that are looked at: the start of a long answer tells its language."""
NO_LANGUAGE = "zxx"
"""What the detector says of numbers, markup and code (ISO 639-3)."""


def unknown_languages(languages: list[str]) -> list[str]:
    """Those of ``languages`` that the detector does not know."""
    known = known_languages()
    return [language for language in languages if language not in known]


@lru_cache(maxsize=1)
def known_languages() -> frozenset[str]:
    """The codes that the detector can answer with."""
    return frozenset(_detector().labels) - {NO_LANGUAGE}


def language(languages: list[str], min_chars: int, min_confidence: float, text: str) -> CheckResult:
    """Check that ``text`` is in one of ``languages``; short and mixed texts abstain."""
    seen = " ".join(text.split())[:WINDOW]
    if len(seen) < min_chars:
        return abstain(f"{len(seen)} characters are too few to tell a language; asked for: {min_chars}")
    code, confidence = _detector().classify(seen)
    if code == NO_LANGUAGE:
        return abstain("no language: numbers, markup or code")
    if confidence < min_confidence:
        return abstain(f"{code} at {confidence:.2f}, not sure enough; asked for: {min_confidence:g}")
    return verdict(code in languages, f"{code} at {confidence:.2f}")


@lru_cache(maxsize=1)
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

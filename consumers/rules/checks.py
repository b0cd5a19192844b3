"""Programmatic checks of one answer: free, exact, the same verdict every time."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from ratchet.consumers.rules.phrases import refusal_phrase
from ratchet.schemas.policies import Check
from ratchet.schemas.rows import canonical

_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check's verdict: ``score`` 1.0 passed or 0.0 failed, and why."""

    score: float
    reason: str


def check_hash(check: Check) -> str:
    """16 hex digits that change whenever what the check asks for changes."""
    asked = canonical(check.model_dump(mode="json", by_alias=True, exclude_none=True))
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def check_problem(check: Check) -> str | None:
    """Say why a check can never run (a broken schema or pattern), or None; ask before traffic does."""
    try:
        if check.kind == "json_schema":
            _validator(canonical(check.json_schema))
        elif check.kind == "regex":
            _pattern(check.pattern or "")
    except SchemaError as error:
        return f"check {check.name!r}: schema is no JSON Schema: {error.message}"
    except re.error as error:
        return f"check {check.name!r}: pattern {check.pattern!r} is no regular expression: {error}"
    return None


def run_check(check: Check, content: str | None) -> CheckResult:
    """Check one answer.

    Args:
        check: what to ask; run `check_problem` on it first.
        content: the answer's text; None (an answer of tool calls alone) counts as empty text.

    Returns:
        Score 1.0 or 0.0 with a reason for a person.
    """
    text = content or ""
    match check.kind:
        case "json_schema":
            return _json_schema(check, text)
        case "required_fields":
            return _required_fields(check.fields or [], text)
        case "regex":
            found = _pattern(check.pattern or "").search(text)
            return _verdict(found is not None, "pattern found" if found else "pattern not found")
        case "length":
            fits = check.min <= len(text) and (check.max is None or len(text) <= check.max)
            return _verdict(fits, f"{len(text)} characters")
        case "refusal":
            phrase = refusal_phrase(text)
            return _verdict(phrase is None, f"refuses: {phrase!r}" if phrase else "no refusal phrase")


def _verdict(passed: bool, reason: str) -> CheckResult:
    return CheckResult(1.0 if passed else 0.0, reason[:_REASON_CHARS])


def _load(text: str) -> tuple[Any, str | None]:
    try:
        return orjson.loads(text), None
    except orjson.JSONDecodeError as error:
        return None, f"not JSON: {error}"


def _json_schema(check: Check, text: str) -> CheckResult:
    value, problem = _load(text)
    if problem:
        return _verdict(False, problem)
    try:
        error: ValidationError | None = best_match(_validator(canonical(check.json_schema)).iter_errors(value))
    except RecursionError:
        return _verdict(False, "nested too deeply to validate")
    if error is None:
        return _verdict(True, "fits the schema")
    return _verdict(False, f"{error.json_path}: {error.message}")


def _required_fields(fields: list[str], text: str) -> CheckResult:
    value, problem = _load(text)
    if problem:
        return _verdict(False, problem)
    if not isinstance(value, dict):
        return _verdict(False, "JSON, but no object")
    missing = [name for name in fields if value.get(name) in (None, "")]
    return _verdict(not missing, f"missing or empty: {', '.join(missing)}" if missing else "all fields present")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Validator:
    loaded = orjson.loads(schema)
    kind = validator_for(loaded, default=Draft202012Validator)
    kind.check_schema(loaded)
    return kind(loaded)


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)

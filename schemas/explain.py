"""What is wrong with a value that a model refused, in one line for a person."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ratchet.schemas.ids import ALLOWED


def explain(error: ValidationError, hidden: frozenset[str] = frozenset()) -> str:
    """Name each bad field, what is wrong and the value, in one line; values of ``hidden`` fields are not shown."""
    return "; ".join(_problem(item, hidden) for item in error.errors(include_url=False))


def _problem(item: ErrorDetails, hidden: frozenset[str]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "event"
    if item["type"] == "missing":
        return f"{where}: {item['msg']}"
    value = item.get("input")
    within = value.keys() if isinstance(value, dict) else ()
    got = "a secret" if not hidden.isdisjoint((*map(str, item["loc"]), *within)) else _short(value)
    message = item["msg"]
    if item["type"] == "string_pattern_mismatch" and (allowed := ALLOWED.get(item["ctx"]["pattern"])):
        message = f"allowed: {allowed}"
    elif item["type"] == "timezone_aware":
        message = "a time without zone; allowed: RFC 3339 with a zone, e.g. 2026-11-01T12:00:00Z"
    return f"{where}: {message} (got {got})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

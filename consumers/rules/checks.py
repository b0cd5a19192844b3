"""Programmatic checks of one answer: free, exact, the same verdict every time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from ratchet.consumers.rules import json_checks, language, references
from ratchet.consumers.rules.patterns import TooSlow, compiled, found
from ratchet.consumers.rules.phrases import refusal_phrase, uncertain_phrase
from ratchet.consumers.rules.references import Expected
from ratchet.consumers.rules.results import CheckResult, abstain, read_returned, verdict
from ratchet.schemas.checks import (
    Answer,
    Check,
    FunctionCheck,
    JsonSchemaCheck,
    LanguageCheck,
    LatencyCheck,
    LengthCheck,
    RefusalCheck,
    RegexCheck,
    RequiredFieldsCheck,
    ToolCallsCheck,
    UncertaintyCheck,
)
from ratchet.schemas.errors import FunctionFailed
from ratchet.schemas.rows import canonical


@dataclass(frozen=True)
class Prepared:
    """A check with all that it needs beside the answer."""

    check: Check
    hash: str
    expected: Expected | None = None
    """Of a reference check: the file's lines."""
    call: Callable[[Answer], object] | None = None
    """Of a function check: calls it, or raises `FunctionFailed`."""


def check_hash(check: Check, outside: str = "") -> str:
    """16 hex digits that change whenever what the check asks for changes.

    Args:
        check: as declared.
        outside: the version of what it uses beside its declaration: a file's content, a function's source.
    """
    asked = canonical(check.model_dump(mode="json", by_alias=True, exclude_none=True))
    return hashlib.sha256(f"{asked}{outside}".encode()).hexdigest()[:16]


def check_problem(check: Check) -> str | None:
    """Say why a check can never run (a broken schema or pattern), or None; ask before traffic does."""
    match check:
        case JsonSchemaCheck():
            problem = json_checks.schema_problem(check.json_schema)
            return f"check {check.name!r}: schema is no JSON Schema: {problem}" if problem else None
        case RegexCheck():
            try:
                compiled(check.pattern)
            except regex.error as error:
                return f"check {check.name!r}: pattern {check.pattern!r} is no regular expression: {error}"
        case LanguageCheck():
            if unknown := language.unknown_languages(check.languages):
                allowed = ", ".join(sorted(language.known_languages()))
                return f"check {check.name!r}: languages {', '.join(unknown)}; allowed: {allowed}"
    return None


def run_check(prepared: Prepared, answer: Answer) -> CheckResult | None:
    """Check one answer.

    Args:
        prepared: what to ask; `check_problem` found nothing wrong with it.
        answer: the answer and its request.

    Returns:
        A verdict with a reason for a person; None where the check does not apply to this answer (no
        reference for its prompt, no tool call, no first token to time).
    """
    match prepared.check:
        case JsonSchemaCheck() as check:
            return json_checks.json_schema(check.json_schema, answer.text)
        case RequiredFieldsCheck() as check:
            return json_checks.required_fields(check.fields, answer.text)
        case ToolCallsCheck() as check:
            return json_checks.tool_calls(answer.tool_calls, answer.request.tools, check.required)
        case RegexCheck() as check:
            return _regex(check, answer.text)
        case LengthCheck() as check:
            return _length(check, answer)
        case LanguageCheck() as check:
            return language.language(check.languages, check.min_chars, check.min_confidence, answer.text)
        case RefusalCheck() as check:
            return _phrases("refuses", "no refusal phrase", refusal_phrase(answer.text, check.phrases))
        case UncertaintyCheck() as check:
            return _phrases("hedges", "no uncertain phrase", uncertain_phrase(answer.text, check.phrases))
        case LatencyCheck() as check:
            return _latency(check, answer)
        case FunctionCheck() as check:
            return _function(check, prepared.call, answer)
        case check:
            wanted: tuple[str, ...] | None = (check.expect,) if check.expect is not None else None
            if prepared.expected is not None:
                wanted = references.expected_of(prepared.expected, check.by, answer.request, answer.tags)
            return references.compare(check.match, check.threshold, wanted, answer.text) if wanted else None


def run_checks(prepared: Sequence[Prepared], answer: Answer) -> list[tuple[Prepared, CheckResult]]:
    """Run every check on one answer; those that do not apply are left out."""
    results = ((one, run_check(one, answer)) for one in prepared)
    return [(one, result) for one, result in results if result is not None]


def _regex(check: RegexCheck, text: str) -> CheckResult:
    try:
        there = found(check.pattern, text)
    except TooSlow as slow:
        return abstain(str(slow))
    return verdict(there != check.absent, "pattern found" if there else "pattern not found")


def _length(check: LengthCheck, answer: Answer) -> CheckResult:
    match check.unit:
        case "characters":
            size: int | None = len(answer.text)
        case "words":
            size = len(answer.text.split())
        case "tokens":
            size = answer.completion_tokens
    if size is None:
        return abstain("the model server did not count tokens")
    return verdict(check.min <= size and (check.max is None or size <= check.max), f"{size} {check.unit}")


def _phrases(says: str, nothing: str, phrase: str | None) -> CheckResult:
    return verdict(phrase is None, f"{says}: {phrase!r}" if phrase else nothing)


def _latency(check: LatencyCheck, answer: Answer) -> CheckResult | None:
    took = answer.latency_ms if check.of == "latency" else answer.ttft_ms
    if took is None:
        # an answer that was not streamed has no first token; where nothing was timed at all, nothing can be said
        return None if answer.latency_ms is not None else abstain("its time was not measured")
    return verdict(took <= check.max_ms, f"{check.of} {took:.0f} ms, allowed: {check.max_ms:g}")


def _function(check: FunctionCheck, call: Callable[[Answer], object] | None, answer: Answer) -> CheckResult:
    if call is None:
        return abstain(f"{check.function} was not loaded")
    try:
        returned = call(answer)
    except FunctionFailed as error:
        return abstain(f"{check.function}: {error}")
    return read_returned(returned, check.threshold)

"""Checks of structured output: JSON that fits a schema, fields that are there, tool calls that can be carried out.

No schema is fetched from anywhere: a ``$ref`` that leaves the schema abstains. A ``pattern`` inside a schema
is searched with the limit of `patterns`; those of a request's tools are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson
import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from ratchet.consumers.rules.patterns import TooSlow, compiled, found
from ratchet.consumers.rules.results import CheckResult, abstain, verdict
from ratchet.schemas.rows import canonical


def json_schema(schema: dict[str, Any], text: str) -> CheckResult:
    """Check that ``text`` is JSON, alone, that fits ``schema``."""
    value, problem = _load(text)
    return verdict(False, problem) if problem else _fits(canonical(schema), value)


def required_fields(fields: Sequence[str], text: str) -> CheckResult:
    """Check that ``text`` is a JSON object in which ``fields`` are there and neither null nor empty text."""
    value, problem = _load(text)
    if problem:
        return verdict(False, problem)
    if not isinstance(value, dict):
        return verdict(False, "JSON, but no object")
    missing = [name for name in fields if value.get(name) in (None, "")]
    return verdict(not missing, f"missing or empty: {', '.join(missing)}" if missing else "all fields present")


def tool_calls(
    calls: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, required: bool
) -> CheckResult | None:
    """Check each call's name and arguments against the request's tools (OpenAI's shapes).

    Returns:
        None where there is no call and none is required.
    """
    if not calls:
        return verdict(False, "no tool was called") if required else None
    offered = {str(one["name"]): one for tool in tools or () if (one := _tool(tool)) is not None}
    for call in calls:
        asked = _tool(call)
        if asked is None:
            return verdict(False, "a tool call without a name")
        name, given = str(asked["name"]), asked.get("arguments")
        if name not in offered:
            return verdict(False, f"{name}: no tool of the request; offered: {', '.join(offered) or 'none'}")
        if call.get("type") == "custom":
            continue  # its input is free text
        value, problem = _load(given) if isinstance(given, str) else (given, None)
        if problem or not isinstance(value, dict):
            return verdict(False, f"{name}: arguments are {problem or 'JSON, but no object'}")
        result = _fits_parameters(offered[name].get("parameters") or {}, value)
        if result.verdict != "pass":
            return CheckResult(result.score, result.verdict, f"{name}: {result.reason}")
    return verdict(True, f"{len(calls)} tool calls fit" if len(calls) > 1 else "the tool call fits")


def schema_problem(schema: object) -> str | None:
    """Say why no answer could be checked against ``schema``, or None."""
    try:
        _validator(canonical(schema))
        for pattern in _patterns(schema):
            compiled(pattern)
    except SchemaError as error:
        return str(error.message)
    except (regex.error, RecursionError) as error:
        return f"a pattern is no regular expression: {error}" if isinstance(error, regex.error) else "nested too deeply"
    return None


def _tool(value: object) -> dict[str, Any] | None:
    """The part of a tool or a call of one that has its name."""
    inner = value.get("custom" if value.get("type") == "custom" else "function") if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) and isinstance(inner.get("name"), str) else None


def _load(text: str) -> tuple[Any, str | None]:
    try:
        return orjson.loads(text), None
    except orjson.JSONDecodeError as error:
        return None, f"not JSON: {error}"


def _fits(schema: str, value: Any) -> CheckResult:
    try:
        error: ValidationError | None = best_match(_validator(schema).iter_errors(value))
    except RecursionError:
        return verdict(False, "nested too deeply to validate")
    except TooSlow as slow:
        return abstain(str(slow))
    except Unresolvable as lost:
        return abstain(f"the schema's $ref {lost.ref!r} is not in it, and none is fetched")
    if error is None:
        return verdict(True, "fits the schema")
    return verdict(False, f"{error.json_path}: {error.message}")


def _fits_parameters(parameters: Any, arguments: dict[str, Any]) -> CheckResult:
    try:
        schema = _without_patterns(parameters)
        if problem := schema_problem(schema):
            return abstain(f"the request's own parameters are no JSON Schema: {problem}")
        return _fits(canonical(schema), arguments)
    except (RecursionError, orjson.JSONEncodeError):
        return abstain("the request's own parameters are nested too deeply")


def _without_patterns(schema: Any, names: bool = False) -> Any:
    """A request's schema without its regular expressions: compiling a stranger's can take all memory.

    What other properties may be there hangs on ``patternProperties``, so it goes with them.
    """
    if isinstance(schema, list):
        return [_without_patterns(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    dropped: set[str] = set()
    if not names:  # below "properties" and "$defs" these are names of the app's own
        dropped = {"pattern"} if isinstance(schema.get("pattern"), str) else set()
        if "patternProperties" in schema:
            dropped |= {"patternProperties", "additionalProperties", "unevaluatedProperties"}
    return {
        name: inner if not names and name in _VALUES else _without_patterns(inner, not names and name in _NAMED)
        for name, inner in schema.items()
        if name not in dropped
    }


_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
_VALUES = frozenset({"const", "enum", "default", "examples"})


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not found(pattern, instance):
        yield ValidationError(f"{instance[:80]!r} does not match {pattern[:80]!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, subschema in patterns.items():
        for name, value in instance.items():
            if found(pattern, name):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extra = [name for name in instance if name not in known and not any(found(one, name) for one in patterns)]
    if validator.is_type(allowed, "object"):
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extra:
        shown = ", ".join(repr(name)[:40] for name in extra[:5])
        yield ValidationError(f"Additional properties are not allowed ({shown} {_were(len(extra))} unexpected)")


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _patterns(inner)


_BOUNDED = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}


@lru_cache(maxsize=16)
def _bounded(kind: type[Validator]) -> type[Validator]:
    return extend(kind, _BOUNDED)  # type: ignore[no-untyped-call, no-any-return]


@lru_cache(maxsize=256)
def _validator(schema: str) -> Validator:
    loaded = orjson.loads(schema)
    kind = validator_for(loaded, default=Draft202012Validator)
    kind.check_schema(loaded)
    return _bounded(kind)(loaded, registry=Registry())

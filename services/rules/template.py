r"""Templates of an import map: a record in, a value out; pure.

Five forms, and no others:

- a text with ``{field}`` placeholders (``{user.name}``, ``{items.0}``; ``{{`` and ``}}`` are braces).
  A text that is one placeholder alone keeps the field's type; in longer texts a field that is no
  text is written as JSON;
- ``{ from = "{vote}", lookup = { "1" = "this" }, default = "tie" }``: the value by the field's text;
- ``{ text = "{a}\n{b}", strip = true }``: a text without white space around it;
- ``{ hash = "{user}" }``: 32 hex digits of SHA-256, for names that must not be kept;
- any other value is a constant; tables and lists are filled in member by member.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIELD = re.compile(r"\{([^{}]+)\}")
_FORMS = ({"from", "lookup"}, {"from", "lookup", "default"}, {"text", "strip"}, {"hash"})


class Unfilled(Exception):
    """A template that this record does not fill; the text names the field or the value."""


def form_problem(template: Any) -> str | None:
    """Say what is wrong with a template, whatever the record, or None."""
    if isinstance(template, str):
        for found in _PART.finditer(template):
            if found[0] in "{}" or (found[1] is not None and not found[1].strip()):
                return f"{template!r}: a lone brace; allowed: {{field}}, and {{{{ or }}}} for a brace itself"
        return None
    if isinstance(template, list):
        return next(filter(None, map(form_problem, template)), None)
    if isinstance(template, dict):
        keys = set(template)
        if keys in _FORMS:
            # A lookup's keys and values are constants: nothing in them is filled in.
            values = [template[key] for key in keys - {"lookup", "default", "strip"}]
            if not all(isinstance(value, str) for value in values):
                return f"{template!r}: 'from', 'text' and 'hash' take a text"
            if not isinstance(template.get("lookup", {}), dict) or not isinstance(template.get("strip", True), bool):
                return f"{template!r}: 'lookup' takes a table and 'strip' takes true or false"
            return next(filter(None, map(form_problem, values)), None)
        return next(filter(None, map(form_problem, template.values())), None)
    return None


def field(record: Any, path: str) -> Any:
    """The value at a dotted path; digits index lists.

    Raises:
        Unfilled: names the path and the part that is not there.
    """
    if isinstance(record, dict) and path in record:
        return record[path]
    value = record
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise Unfilled(f"the record has no field {path!r}" + (f" (no {part!r} in it)" if part != path else ""))
    return value


def text(value: Any) -> str:
    """A value inside a longer text: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def fill(template: Any, record: Any) -> Any:
    """Fill a template from a record.

    Raises:
        Unfilled: a field is not there, or a lookup does not know its value.
    """
    if isinstance(template, str):
        alone = _FIELD.fullmatch(template)
        return field(record, alone[1].strip()) if alone else _join(template, record)
    if isinstance(template, list):
        return [fill(item, record) for item in template]
    if isinstance(template, dict):
        keys = set(template)
        if keys in _FORMS:
            return _form(template, record)
        return {key: fill(value, record) for key, value in template.items()}
    return template


def _form(template: dict[str, Any], record: Any) -> Any:
    if "hash" in template:
        return hashlib.sha256(text(fill(template["hash"], record)).encode()).hexdigest()[:32]
    if "text" in template:
        filled = text(fill(template["text"], record))
        return filled.strip() if template["strip"] else filled
    key = text(fill(template["from"], record))
    lookup = template["lookup"]
    if key in lookup:
        return lookup[key]
    if "default" in template:
        return template["default"]
    raise Unfilled(f"{template['from']} is {key!r}; the lookup knows: {', '.join(map(repr, lookup))}")


def _join(template: str, record: Any) -> str:
    def part(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        return text(field(record, (found[1] or "").strip()))

    return _PART.sub(part, template)

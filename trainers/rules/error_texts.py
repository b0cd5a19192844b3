"""Answers that report a failure of a model or a server: nothing to learn from, whatever people said of them.

Narrow on purpose: an answer *about* an error ("a 502 means …") is an answer. It counts as an error text where it
begins like one and is short, is a traceback, or is JSON whose only word is an error.
"""

from __future__ import annotations

import re

import orjson

LONGEST = 400
"""Characters; a failure's own text is shorter, an explanation of one is longer."""

_BEGINS = re.compile(
    r"\W*(?:"
    r"(?:http\s*)?(?:status\s*)?(?:code\s*)?(?:4(?:00|01|03|04|08|13|22|29)|5(?:00|02|03|04|29))\b[ :\-]+"
    r"(?:bad request|unauthori[sz]ed|forbidden|not found|request timeout|payload too large|unprocessable"
    r"|too many requests|internal server error|bad gateway|service (?:temporarily )?unavailable|gateway time-?out"
    r"|overloaded)"
    r"|internal server error|bad gateway|gateway time-?out|service (?:temporarily )?unavailable|too many requests"
    r"|(?:request|read|connection|upstream) (?:timed out|timeout)|connection (?:error|refused|reset)"
    r"|(?:api |openai\.|server |runtime |value |key |type )?error(?: code)?:"
    r"|rate limit (?:reached|exceeded)|you exceeded your current quota"
    r"|(?:the |this )?model (?:is )?(?:currently |temporarily )?(?:overloaded|not available|unavailable)"
    r"|(?:this model's )?maximum context length"
    r"|an? (?:unexpected |internal |unknown )?error (?:has )?occurred"
    r"|something went wrong"
    r"|<!doctype html|<html"
    r")",
    re.IGNORECASE,
)
_TRACEBACK = re.compile(r"\A\W*(?:Traceback \(most recent call last\):|Exception in thread \")")


def error_text(answer: str) -> bool:
    """Whether an answer is the report of a failure."""
    text = answer.strip()
    if _TRACEBACK.match(text):
        return True
    if len(text) > LONGEST:
        return False
    return bool(_BEGINS.match(text)) or _error_object(text)


def _error_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and bool(value.get("error")) and not value.keys() - {"error", "code", "status", "id"}

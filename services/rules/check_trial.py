"""A trial of checks: answers from a file or from stored rows, and what the checks said of them in figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from ratchet.consumers.rules.checks import Prepared
from ratchet.consumers.rules.intervals import wilson
from ratchet.consumers.rules.results import CheckResult
from ratchet.schemas.checks import Answer
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import InvalidEvent
from ratchet.schemas.events import Inference, Request, Response
from ratchet.schemas.explain import explain

REASONS = 3
"""The commonest reasons that a trial shows of each check."""
_ASKED = ("messages", "prompt", "params", "tools", "response_format")
_FIGURES = re.compile(r"\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"")


def read_answers(lines: Iterable[str], task: str) -> Iterator[Answer]:
    """Read answers from JSONL: ``inference.v1`` events, or ``messages`` (or ``prompt``) with ``text``.

    Beside these a line may have what `Answer` and a request have: ``tool_calls``, ``latency_ms``, ``tags``,
    ``tools``, ``params``, … Calls without an answer are passed over.

    Raises:
        InvalidEvent: names the line, the field and what is allowed.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            answer = _answer(line, task)
        except orjson.JSONDecodeError as error:
            raise InvalidEvent(f"line {number}: not JSON: {error}") from None
        except ValidationError as error:
            raise InvalidEvent(f"line {number}: {explain(error)}") from None
        except InvalidEvent as error:
            raise InvalidEvent(f"line {number}: {error}") from None
        if answer is not None:
            yield answer


def _answer(line: str, task: str) -> Answer | None:
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise InvalidEvent("no object; allowed: an inference.v1 event, or messages with text")
    if "schema" in value:
        return Answer.of(parse(Inference, line.encode()))
    request = Request.model_validate({name: value.pop(name) for name in _ASKED if name in value})
    return Answer.model_validate({"task": task} | value | {"request": request})


def stored_answer(row: Mapping[str, Any], task: str) -> Answer:
    """The answer of a row of ``checks_traffic.sql``."""
    response = Response.model_validate_json(row["response"])
    return Answer(
        text=response.content or "",
        request=Request.model_validate_json(row["request"]),
        task=task,
        adapter=row["adapter"],
        tool_calls=response.tool_calls or [],
        finish_reason=response.finish_reason,
        latency_ms=row["latency_ms"],
        ttft_ms=row["ttft_ms"],
        completion_tokens=row["completion_tokens"] or None,
        tags=dict(row["tags"]),
    )


@dataclass
class Trial:
    """One check's verdicts so far."""

    prepared: Prepared
    passed: int = 0
    failed: int = 0
    abstained: int = 0
    not_applicable: int = 0
    total: float = 0.0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, result: CheckResult | None) -> None:
        """Count one answer; None where the check does not apply to it."""
        if result is None:
            self.not_applicable += 1
            return
        self.passed += result.verdict == "pass"
        self.failed += result.verdict == "fail"
        self.abstained += result.verdict == "abstain"
        self.total += result.score or 0.0
        if result.verdict != "pass":
            # reasons that differ in their figures and quotations alone are one reason
            kind = result.verdict, _FIGURES.sub("…", result.reason)
            self.reasons[kind] += 1
            self.examples.setdefault(kind, result.reason)

    def as_json(self) -> dict[str, Any]:
        """The figures: ``share`` of ``n`` verdicts passed, its 95% Wilson interval, and the commonest reasons."""
        n = self.passed + self.failed
        low, high = wilson(self.passed, n)
        return {
            "check": self.prepared.check.name,
            "kind": self.prepared.check.kind,
            "hash": self.prepared.hash,
            "n": n,
            "passed": self.passed,
            "share": self.passed / n if n else None,
            "low": low if n else None,
            "high": high if n else None,
            "mean_score": self.total / n if n else None,
            "abstained": self.abstained,
            "not_applicable": self.not_applicable,
            "reasons": [
                {"verdict": kind[0], "n": count, "example": self.examples[kind]}
                for kind, count in self.reasons.most_common(REASONS)
            ],
        }


def try_checks(prepared: Sequence[Prepared], said: Iterable[Sequence[tuple[Prepared, CheckResult]]]) -> list[Trial]:
    """Count what the checks said of each answer.

    Args:
        prepared: the task's checks.
        said: of each answer the verdicts of the checks that apply.
    """
    trials = {one.hash: Trial(one) for one in prepared}
    for verdicts in said:
        results = {one.hash: result for one, result in verdicts}
        for key, trial in trials.items():
            trial.add(results.get(key))
    return list(trials.values())

"""Completion on frozen held-out prompts: ask a served adapter, check every answer, bound the rate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ratchet.consumers.rules.checks import check_problem, run_check
from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.errors import DatasetError, ModelError
from ratchet.schemas.policies import Check, TaskPolicy

if TYPE_CHECKING:
    from openai import AsyncOpenAI

SHOWN = 5
"""Failed answers that an evaluation shows."""


@dataclass(frozen=True, slots=True)
class Completion:
    """``k`` of ``n`` held-out answers pass the task's check: the rate and its 95% Wilson interval."""

    n: int
    k: int
    rate: float
    low: float
    high: float
    check: str
    examples: list[dict[str, str]] = field(default_factory=list)
    """The first failed answers: ``id``, ``answer``, ``reason``."""

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        return asdict(self)


def completion_check(task: str, policy: TaskPolicy) -> Check:
    """The check that says whether an answer completes the task.

    Raises:
        DatasetError: the task is completed by outcome events, which held-out prompts cannot have.
    """
    for check in policy.checks:
        if check.name == policy.completion:
            problem = check_problem(check)
            if problem:
                raise DatasetError(problem)
            return check
    raise DatasetError(
        f"task {task!r} counts completion by {policy.completion!r}; held-out evaluation needs a check's name there"
    )


async def completion(
    client: AsyncOpenAI,
    model: str,
    rows: Sequence[dict[str, Any]],
    check: Check,
    *,
    system_prompt: str | None = None,
    concurrency: int = 32,
    max_tokens: int = 256,
) -> Completion:
    """Ask every held-out prompt once, greedily, and check the answers.

    Where a row has ``expect`` (a JSON object), the answer must also have each of its values.

    Args:
        client: of one vLLM replica (or any OpenAI-compatible server).
        model: the served name: an adapter's, or the base model's.
        rows: ``{"id", "messages", "expect"?}``.
        check: the task's completion check.
        system_prompt: put first where a row has none, as the gateway does.
        concurrency: requests under way at once.
        max_tokens: limit of one answer.

    Raises:
        ModelError: the server refused or is away; an unanswered prompt is never counted as failed.
    """
    from openai import OpenAIError

    gate = asyncio.Semaphore(concurrency)

    async def ask(row: dict[str, Any]) -> str:
        messages = with_system(row["messages"], system_prompt)
        async with gate:
            answer = await client.chat.completions.create(
                model=model, messages=messages, temperature=0.0, max_tokens=max_tokens, seed=0
            )
        return (answer.choices[0].message.content or "") if answer.choices else ""

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(row)) for row in rows]
    except* OpenAIError as errors:
        first = errors.exceptions[0]
        raise ModelError(f"evaluation of {model}: {type(first).__name__}: {first}") from first
    return judge(rows, [one.result() for one in asked], check)


def judge(rows: Sequence[dict[str, Any]], answers: Sequence[str], check: Check) -> Completion:
    """Check answers that were given to held-out prompts; the counting part of `completion`."""
    k = 0
    examples: list[dict[str, str]] = []
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        verdict = run_check(check, answer)
        reason = None if verdict.score == 1.0 else verdict.reason
        reason = reason or expectation_problem(row.get("expect"), answer)
        if reason is None:
            k += 1
        elif len(examples) < SHOWN:
            examples.append({"id": str(row.get("id", number)), "answer": answer[:500], "reason": reason})
    n = len(rows)
    low, high = wilson(k, n)
    return Completion(n, k, k / n if n else 0.0, low, high, check.name, examples)


def expectation_problem(expected: Any, answer: str) -> str | None:
    """Say which expected value an answer lacks, or None.

    ``expected`` is an object: the answer's JSON has each of its values. A text: the answer is that text.
    """
    import orjson

    if expected is None:
        return None
    if not isinstance(expected, dict):
        return None if answer.strip() == str(expected).strip() else f"expected {str(expected)[:200]!r}"
    try:
        given = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(given, dict):
        return "JSON, but no object"
    wrong = [name for name, value in expected.items() if given.get(name) != value]
    return f"{wrong[0]}: expected {expected[wrong[0]]!r}, got {given.get(wrong[0])!r}" if wrong else None


def with_system(messages: list[dict[str, Any]], system_prompt: str | None) -> Any:
    """The messages with the task's system prompt first, where they bring none."""
    if system_prompt is None or (messages and messages[0].get("role") == "system"):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]

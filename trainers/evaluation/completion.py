"""Completion on frozen held-out prompts: ask a served adapter, check every answer, bound the rate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ratchet.consumers.check_set import CheckSet
from ratchet.consumers.rules.intervals import wilson
from ratchet.consumers.rules.results import CheckResult
from ratchet.schemas.checks import Answer, Check
from ratchet.schemas.errors import DatasetError, SettingsError
from ratchet.schemas.events import Request
from ratchet.schemas.explain import explain
from ratchet.schemas.policies import TaskPolicy
from ratchet.trainers.evaluation.asking import Asked, ask, with_system
from ratchet.trainers.rules.measures import Observed, Value

if TYPE_CHECKING:
    from openai import AsyncOpenAI

SHOWN = 5
"""Failed answers that an evaluation shows."""


@dataclass(frozen=True, slots=True)
class Completion:
    """``k`` of ``n`` held-out answers pass the task's check: the rate and its 95% Wilson interval.

    An answer of which the check cannot say is neither: it is not in ``n`` but in ``unjudged``.
    """

    n: int
    k: int
    rate: float | None
    """None without a single verdict."""
    low: float
    high: float
    check: str
    examples: list[dict[str, str]] = field(default_factory=list)
    """The first answers that failed or were not judged: ``id``, ``answer``, ``reason``."""
    unjudged: int = 0
    """Answers on which the check abstained, or to which it does not apply."""

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON has them."""
        return asdict(self)


def completion_check(task: str, policy: TaskPolicy, folder: Path = Path()) -> Check:
    """The check that says whether an answer completes the task.

    Args:
        task: its name.
        policy: its policy.
        folder: of ``ratchet.toml``; reference files and modules of functions are beside it.

    Raises:
        DatasetError: a check that can never run, or a task that is completed by outcome events, which
            held-out prompts cannot have.
    """
    for check in policy.checks:
        if check.name == policy.completion:
            try:
                CheckSet({task: [check]}, folder).close()
            except SettingsError as error:
                raise DatasetError(str(error)) from None
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
    folder: Path = Path(),
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
        folder: of ``ratchet.toml``, for files and functions of the check.
        system_prompt: put first where a row has none, as the gateway does.
        concurrency: requests under way at once.
        max_tokens: limit of one answer.

    Raises:
        ModelError: the server refused or is away; an unanswered prompt is never counted as failed.
    """
    (replies,) = await ask(
        [Asked(client, model)], rows, system_prompt=system_prompt, concurrency=concurrency, max_tokens=max_tokens
    )
    answers = [reply.text for reply in replies]
    return await asyncio.to_thread(judge, rows, answers, check, folder=folder, system_prompt=system_prompt)


def judge(
    rows: Sequence[dict[str, Any]],
    answers: Sequence[str],
    check: Check,
    *,
    folder: Path = Path(),
    system_prompt: str | None = None,
) -> Completion:
    """Check answers that were given to held-out prompts, and count them; raises as `verdicts`."""
    return counted(
        rows, answers, verdicts(rows, answers, check, folder=folder, system_prompt=system_prompt), check.name
    )


def verdicts(
    rows: Sequence[dict[str, Any]],
    answers: Sequence[str],
    check: Check,
    *,
    folder: Path = Path(),
    system_prompt: str | None = None,
) -> list[tuple[bool | None, str]]:
    """Whether each answer completes the task (None: nobody can say), and why not.

    Raises:
        DatasetError: a row whose messages or tags are none.
        SettingsError: a check that can never run.
    """
    said = []
    with CheckSet({"": [check]}, folder) as checks:
        for number, (row, text) in enumerate(zip(rows, answers, strict=True)):
            try:
                request = Request(messages=with_system(row["messages"], system_prompt))
                answer = Answer(text=text, request=request, tags=row.get("tags") or {})
            except ValidationError as error:
                raise DatasetError(f"held-out prompt {row.get('id', number)!r}: {explain(error)}") from None
            found = checks.run("", answer)
            said.append(_word(found[0][1] if found else None, expectation_problem(row.get("expect"), text)))
    return said


def counted(
    rows: Sequence[dict[str, Any]], answers: Sequence[str], said: Sequence[tuple[bool | None, str]], check: str
) -> Completion:
    """Count verdicts, and keep the first answers that failed or have none."""
    k, unjudged = sum(passed is True for passed, _ in said), sum(passed is None for passed, _ in said)
    examples = [
        {"id": str(row.get("id", number)), "answer": text[:500], "reason": reason}
        for number, (row, text, (passed, reason)) in enumerate(zip(rows, answers, said, strict=True))
        if not passed
    ]
    n = len(rows) - unjudged
    low, high = wilson(k, n)
    return Completion(n, k, k / n if n else None, low, high, check, examples[:SHOWN], unjudged)


def observed(said: Sequence[tuple[bool | None, str]]) -> Observed:
    """Verdicts as a metric's numbers, prompts named by their place in the file."""
    values: dict[str, Value] = {f"{n:06}": (float(one),) for n, (one, _) in enumerate(said) if one is not None}
    return Observed(values, frozenset(f"{n:06}" for n, (one, _) in enumerate(said) if one is None))


def _word(result: CheckResult | None, unexpected: str | None) -> tuple[bool | None, str]:
    """Whether an answer completes its task (None: nobody can say), and why not."""
    if result is not None and result.verdict == "fail":
        return False, result.reason
    if unexpected is not None:
        return False, unexpected
    if result is None:
        return None, "the check does not apply to this answer"
    return (True, "") if result.verdict == "pass" else (None, f"the check abstained: {result.reason}")


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

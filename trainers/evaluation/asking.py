"""Held-out prompts asked of one or several models: greedily, interleaved, with the time each answer took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratchet.schemas.errors import ModelError

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, slots=True)
class Asked:
    """A model to ask: a client of its server, and its name there."""

    client: AsyncOpenAI
    model: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; ``tokens`` is None where the server did not count."""

    text: str
    latency_ms: float
    tokens: int | None


async def ask(
    models: Sequence[Asked],
    rows: Sequence[dict[str, Any]],
    *,
    system_prompt: str | None = None,
    concurrency: int = 32,
    max_tokens: int = 256,
) -> list[list[Reply]]:
    """Ask every prompt of every model once, at temperature 0.

    The models take turns, prompt by prompt, and each is first as often as the others: what else their server does
    slows all of them alike.

    Args:
        models: whom to ask.
        rows: ``{"messages", …}`` each.
        system_prompt: put first where a row has none, as the gateway does.
        concurrency: requests under way at once, of all models together.
        max_tokens: limit of one answer.

    Returns:
        A list of replies for each model, in the order of the rows.

    Raises:
        ModelError: a server refused or is away; an unanswered prompt is never counted as failed.
    """
    from openai import OpenAIError

    gate = asyncio.Semaphore(concurrency)

    async def one(asked: Asked, row: dict[str, Any]) -> Reply:
        messages = with_system(row["messages"], system_prompt)
        async with gate:
            began = time.perf_counter()
            try:
                answer = await asked.client.chat.completions.create(
                    model=asked.model, messages=messages, temperature=0.0, max_tokens=max_tokens, seed=0
                )
            except OpenAIError as error:
                raise ModelError(f"evaluation of {asked.model}: {type(error).__name__}: {error}") from error
            took = (time.perf_counter() - began) * 1000
        text = (answer.choices[0].message.content or "") if answer.choices else ""
        return Reply(text, took, answer.usage.completion_tokens if answer.usage else None)

    try:
        async with asyncio.TaskGroup() as group:
            # a semaphore lets in the first that came: the order of these is the order of the questions
            tasks = {
                (place, number): group.create_task(one(models[place], row))
                for number, row in enumerate(rows)
                for place in _turn(len(models), number)
            }
    except* ModelError as errors:
        first = errors.exceptions[0]
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [[tasks[place, number].result() for number in range(len(rows))] for place in range(len(models))]


def _turn(n: int, number: int) -> list[int]:
    return [(number + offset) % n for offset in range(n)]


def with_system(messages: list[dict[str, Any]], system_prompt: str | None) -> Any:
    """The messages with the task's system prompt first, where they bring none."""
    if system_prompt is None or (messages and messages[0].get("role") == "system"):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]

"""A judge model's endpoint, with its limits, whoever asks.

Slots, requests and tokens a minute, the day's budget, retries with jitter, bounded patience,
and a pause for an endpoint that is away.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, cast

import openai
from openai import AsyncOpenAI

from ratchet.infra import clock
from ratchet.infra.judge_limits import DayBudget, Limits, TokenBucket, retry_after_s, retry_wait_s
from ratchet.infra.judge_reply import Said, read_completion
from ratchet.schemas.errors import ModelError
from ratchet.schemas.pricing import Price, cost_usd

log = logging.getLogger("ratchet.judge")
MAX_TOKENS = 96
"""Room for a score and a rationale."""
FAILURES = 3
"""Times in a row that an endpoint may be away before it is left alone …"""
PAUSE_S = 30.0
"""… for this long."""
_CHARACTERS_A_TOKEN = 3
"""On the low side, so that estimates are on the high side."""


class JudgeEndpoint:
    """Asks one judge model within its limits; safe to share between coroutines of one event loop."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 90.0,
        retries: int = 2,
        max_tokens: int = MAX_TOKENS,
        concurrency: int = 2,
        limits: Limits = Limits(),
        price: Price | None = None,
        failures: int = FAILURES,
        pause_s: float = PAUSE_S,
        now: Callable[[], datetime] = clock.now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Connect lazily.

        Args:
            base_url: the endpoint, ending in ``/v1`` where it has that.
            model: the model's name there; also the judge's id in scores.
            api_key: None for a local endpoint without keys.
            timeout_s: for one try.
            patience_s: for one question, retries included.
            retries: further tries after 429, 5xx, time-outs and lost connections.
            max_tokens: room for the score and a rationale.
            concurrency: questions at once; more wait.
            limits: what it may be asked.
            price: of its tokens; None: its cost is unknown.
            failures: times in a row that the endpoint may be away before it is left alone …
            pause_s: … for this long, failing at once.
            now: the wall clock, for the day.
            monotonic: a clock that only goes forward, in seconds.
            sleep: waits.
            jitter: gives numbers from 0 to 1.
        """
        self.model = model
        self.price = price
        self.max_tokens = max_tokens
        self.concurrency = concurrency
        self.budget = DayBudget(limits)
        self._requests = TokenBucket(limits.requests_per_minute) if limits.requests_per_minute else None
        self._tokens = TokenBucket(limits.tokens_per_minute) if limits.tokens_per_minute else None
        self._client = AsyncOpenAI(base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=0)
        self._patience_s, self._retries = patience_s, retries
        self._failures_allowed, self._pause_s = failures, pause_s
        self._now, self._monotonic, self._sleep, self._jitter = now, monotonic, sleep, jitter
        self._slots = asyncio.Semaphore(concurrency)
        self._failures = 0
        self._paused_until = float("-inf")
        self._room, self._temperature = "max_tokens", True
        """What the endpoint calls the room for a reply, and whether it lets itself be told a temperature."""

    def estimate(self, system: str, user: str, replies: int = 1) -> tuple[int, float]:
        """Tokens and USD (0 without a price) of a question, on the high side."""
        prompt, completion = (len(system) + len(user)) // _CHARACTERS_A_TOKEN, replies * self.max_tokens
        return prompt + completion, cost_usd(self.price, prompt, completion) or 0.0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def complete(self, system: str, user: str, extra: dict[str, Any]) -> Said:
        """Ask once, within the limits and with retries.

        Args:
            system: the instructions.
            user: what to judge.
            extra: further parameters of the request.

        Raises:
            openai.BadRequestError, openai.UnprocessableEntityError: it does not take this request.
            BudgetSpent: the day's budget is spent.
            ModelError: the endpoint is away, after bounded retries, or answers no completion.
        """
        async with self._slots:
            if (left_s := self._paused_until - self._monotonic()) > 0:
                raise ModelError(f"judge {self.model} is away and is left alone for {left_s:.0f} s")
            held = self.estimate(system, user, int(extra.get("n", 1)))
            self.budget.hold(self._now(), *held)
            spent: tuple[float, float] = (0, 0.0)
            try:
                await self._rate(held[0])
                spent = held  # unless it is known better: without an answer, or a count, it may still be billed
                said = await self._patiently(system, user, extra)
                if tokens := said.prompt_tokens + said.completion_tokens:
                    spent = (tokens, cost_usd(self.price, said.prompt_tokens, said.completion_tokens) or 0.0)
            except TimeoutError as error:
                raise self._failed(f"no reply in {self._patience_s:g} s") from error
            except (ModelError, openai.APIStatusError) as error:
                if not isinstance(error.__cause__, openai.APITimeoutError):
                    spent = (0, 0.0)
                raise
            finally:
                self.budget.settle(self._now(), held, spent)
                if self._tokens is not None:
                    self._tokens.give_back(held[0] - spent[0])
            self._failures = 0
            return said

    async def _rate(self, tokens: float) -> None:
        """Wait for room among the requests and tokens of a minute; longer than the patience is too long."""
        taken = [(self._requests, 1.0), (self._tokens, tokens)]
        now = self._monotonic()
        wait_s = max((bucket.take(amount, now) for bucket, amount in taken if bucket is not None), default=0.0)
        if wait_s > self._patience_s:
            if self._requests is not None:
                self._requests.give_back(1.0)
            raise ModelError(f"judge {self.model}: its limits a minute leave no room for {wait_s:.0f} s")
        if wait_s > 0:
            await self._sleep(wait_s)

    async def _patiently(self, system: str, user: str, extra: dict[str, Any]) -> Said:
        """One question with its retries."""
        deadline = self._monotonic() + self._patience_s
        async with asyncio.timeout(self._patience_s):
            for attempt in range(1, self._retries + 2):
                asked_for: float | None = None
                try:
                    return await self._once(system, user, extra)
                except (openai.BadRequestError, openai.UnprocessableEntityError):
                    raise
                except openai.APIStatusError as error:
                    failure: openai.APIError = error
                    if error.status_code not in (408, 409, 429) and error.status_code < 500:
                        break
                    asked_for = retry_after_s(error.response.headers.get("retry-after"))
                except openai.APIConnectionError as error:  # time-outs among them
                    failure = error
                wait_s = retry_wait_s(attempt, asked_for, self._jitter())
                if attempt > self._retries or self._monotonic() + wait_s > deadline:
                    if asked_for is not None:
                        self._paused_until = self._monotonic() + asked_for
                    break
                if self._requests is not None:
                    wait_s = max(wait_s, self._requests.take(1.0, self._monotonic()))
                await self._sleep(wait_s)
        raise self._failed(f"{type(failure).__name__}: {failure}") from failure

    def _failed(self, why: str) -> ModelError:
        self._failures += 1
        if self._failures >= self._failures_allowed:
            self._paused_until = max(self._paused_until, self._monotonic() + self._pause_s)
            self._failures = 0
            log.warning("judge %s is away and is left alone for %g s: %s", self.model, self._pause_s, why)
        return ModelError(f"judge {self.model}: {why}")

    async def _once(self, system: str, user: str, extra: dict[str, Any]) -> Said:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        while True:
            params: dict[str, Any] = {self._room: self.max_tokens} | extra
            if not self._temperature:
                del params["temperature"]
            try:
                done: object = await self._client.chat.completions.create(
                    model=self.model, messages=cast(Any, messages), **params
                )
                break
            except openai.APIResponseValidationError as error:
                raise self._failed("a reply that is no completion") from error
            except openai.BadRequestError as error:
                if not self._adapt(str(error)):
                    raise
            except openai.APIError:
                raise
            except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON
                raise self._failed(f"{type(error).__name__}: {error}") from error
        said = read_completion(done)
        if said is None:
            raise self._failed("a reply without choices")
        return said

    def _adapt(self, refusal: str) -> bool:
        """Whether the endpoint's refusal names a parameter that there is another way for (reasoning models' own)."""
        if self._room == "max_tokens" and "max_completion_tokens" in refusal:
            self._room = "max_completion_tokens"
        elif self._temperature and "temperature" in refusal:
            self._temperature = False
        else:
            return False
        return True

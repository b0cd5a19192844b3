"""An LLM judge: any endpoint that speaks OpenAI's chat completions.

Endpoints differ in what they support. The client asks for structured output and token
probabilities, and where an endpoint refuses that, for less, remembering what worked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import openai

from ratchet.infra.judge_endpoint import MAX_TOKENS, JudgeEndpoint
from ratchet.infra.judge_limits import Limits
from ratchet.infra.judge_settings import JudgeSettings
from ratchet.schemas.errors import ModelError, SettingsError
from ratchet.schemas.pricing import Price, cost_usd

TOP_LOGPROBS = 20
"""The most that OpenAI and vLLM give."""
LOCAL_MAX_TOKENS = 10
"""The served base model judges by its score token, the seventh of its reply; its reasons are not worth their time."""


class JudgeRefused(ModelError):
    """The endpoint answered, and will not take this prompt (too long, filtered): trying again is no use."""


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """What the judge said.

    ``tokens`` pairs each generated token with the probabilities of what could have stood in its
    place; empty where the endpoint gives none. ``refusal`` is set where the judge declined.
    """

    text: str
    tokens: list[tuple[str, dict[str, float]]]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """Several replies to one question, and what they cost together."""

    texts: list[str]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None


class JudgeClient(JudgeEndpoint):
    """One judge: asks for as much structure as its endpoint supports, and remembers what worked."""

    _variant = 0
    _several = True
    """Whether the endpoint is asked for several choices at once."""

    async def ask(self, system: str, user: str, schema: dict[str, Any] | None = None) -> JudgeReply:
        """Ask for one completion at temperature 0.

        Args:
            system: the instructions.
            user: what to judge.
            schema: JSON Schema of the reply, used where the endpoint supports it.

        Raises:
            JudgeRefused: the endpoint does not take this prompt in any form.
            BudgetSpent: the day's budget is spent.
            ModelError: the endpoint is away, after bounded retries, or answers no completion.
        """
        variants = _variants(schema)
        last: Exception | None = None
        for number in range(min(self._variant, len(variants) - 1), len(variants)):
            try:
                said = await self.complete(system, user, variants[number] | {"temperature": 0.0})
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                last = error
                continue
            # only a success tells an unsupported feature from a refused prompt
            self._variant = number
            first, cost = said.choices[0], cost_usd(self.price, said.prompt_tokens, said.completion_tokens)
            return JudgeReply(
                first.text, first.tokens, said.prompt_tokens, said.completion_tokens, cost, refusal=first.refusal
            )
        raise JudgeRefused(f"judge {self.model} refuses the prompt: {last}") from last

    async def sample(
        self, system: str, user: str, schema: dict[str, Any] | None, k: int, temperature: float
    ) -> Samples:
        """Ask the same ``k`` times at a temperature above 0, in as few requests as the endpoint allows.

        Fewer than ``k`` texts come back where it failed on the way.

        Raises:
            JudgeRefused, BudgetSpent, ModelError: as `ask`, before anything was said.
        """
        texts: list[str] = []
        prompt = completion = 0
        shaped = [variant for variant in _variants(schema) if "logprobs" not in variant]
        while len(texts) < k:
            wanted = k - len(texts) if self._several else 1
            more: dict[str, Any] = {"temperature": temperature} | ({"n": wanted} if wanted > 1 else {})
            try:
                said = await self.complete(system, user, shaped[0] | more)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if wanted > 1:
                    self._several = False
                elif len(shaped) > 1:
                    shaped = shaped[1:]
                else:
                    raise JudgeRefused(f"judge {self.model} refuses the prompt: {error}") from error
                continue
            except ModelError:
                if texts:
                    break
                raise
            texts += [choice.text for choice in said.choices[:wanted]]
            prompt += said.prompt_tokens
            completion += said.completion_tokens
        return Samples(texts, prompt, completion, cost_usd(self.price, prompt, completion))


def _variants(schema: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What to ask for, from most to least."""
    shaped: dict[str, Any] = {}
    if schema is not None:
        shaped = {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": schema, "strict": True},
            }
        }
    likely: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    few: dict[str, Any] = {"logprobs": True, "top_logprobs": 5}
    return [shaped | likely, shaped | few, shaped, likely, {}] if shaped else [likely, few, {}]


def make_judge(
    settings: JudgeSettings, vllm: Sequence[str], base_model: str, name: str = "default", price: Price | None = None
) -> JudgeClient:
    """The judge that the settings name, or else the served base model on the first vLLM replica.

    Raises:
        SettingsError: an address without a model's name, or a budget in USD without the model's price.
    """
    if settings.url is not None and settings.model is None:
        raise SettingsError(f"judges.{name}.model: not set; allowed: the model's name at judges.{name}.url")
    model = settings.model or base_model
    if settings.usd_per_day is not None and price is None:
        raise SettingsError(f'judges.{name}.usd_per_day: {model} has no price; allowed: with [prices."{model}"]')
    limits = Limits(
        settings.requests_per_minute, settings.tokens_per_minute, settings.tokens_per_day, settings.usd_per_day
    )
    return JudgeClient(
        settings.url or f"{vllm[0]}/v1",
        model,
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        timeout_s=settings.timeout_s,
        patience_s=settings.patience_s,
        retries=settings.retries,
        max_tokens=settings.max_tokens or (LOCAL_MAX_TOKENS if settings.url is None else MAX_TOKENS),
        concurrency=settings.concurrency,
        limits=limits,
        price=price,
    )

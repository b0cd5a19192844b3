"""Client of an LLM judge: any endpoint that speaks OpenAI's chat completions.

Endpoints differ in what they support. The client asks for structured output and token
probabilities, and where an endpoint refuses that, for less, remembering what worked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import openai
from openai import AsyncOpenAI

from ratchet.infra.settings import JudgeSettings
from ratchet.schemas.errors import ModelError, SettingsError

TOP_LOGPROBS = 20
"""The most that OpenAI and vLLM give."""


class JudgeRefused(ModelError):
    """The endpoint answered, and will not take this prompt (too long, filtered): trying again is no use."""


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """What the judge said.

    ``tokens`` pairs each generated token with the probabilities of what could have stood in its
    place; empty where the endpoint gives none.
    """

    text: str
    tokens: list[tuple[str, dict[str, float]]]
    prompt_tokens: int
    completion_tokens: int


class JudgeClient:
    """Asks one judge model; safe to share between coroutines of one event loop."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 2,
        max_tokens: int = 96,
    ) -> None:
        """Connect lazily.

        Args:
            base_url: the endpoint, ending in ``/v1`` where it has that.
            model: the model's name there; also the judge's id in scores.
            api_key: None for a local endpoint without keys.
            timeout_s: for one try.
            retries: further tries when the endpoint is away or overloaded, with the library's back-off.
            max_tokens: room for the score and a rationale.
        """
        self.model = model
        self._max_tokens = max_tokens
        self._client = AsyncOpenAI(base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=retries)
        self._variant = 0

    async def ask(self, system: str, user: str, schema: dict[str, Any] | None = None) -> JudgeReply:
        """Ask for one completion at temperature 0.

        Args:
            system: the instructions.
            user: what to judge.
            schema: JSON Schema of the reply, used where the endpoint supports it.

        Raises:
            JudgeRefused: the endpoint does not take this prompt in any form.
            ModelError: the endpoint is away, after bounded retries.
        """
        variants = _variants(schema)
        last: Exception | None = None
        for number in range(min(self._variant, len(variants) - 1), len(variants)):
            try:
                reply = await self._once(system, user, variants[number])
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                last = error
                continue
            except openai.OpenAIError as error:
                raise ModelError(f"judge {self.model}: {type(error).__name__}: {error}") from error
            # only a success tells an unsupported feature from a refused prompt
            self._variant = number
            return reply
        raise JudgeRefused(f"judge {self.model} refuses the prompt: {last}") from last

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _once(self, system: str, user: str, extra: dict[str, Any]) -> JudgeReply:
        done = await self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
            temperature=0.0,
            max_tokens=self._max_tokens,
            **extra,
        )
        if not done.choices:
            raise ModelError(f"judge {self.model}: a reply without choices")
        choice = done.choices[0]
        tokens = [
            (item.token, {top.token: math.exp(min(0.0, top.logprob)) for top in item.top_logprobs})
            for item in ((choice.logprobs and choice.logprobs.content) or [])
        ]
        usage = done.usage
        return JudgeReply(
            choice.message.content or "",
            tokens,
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
        )


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


LOCAL_MAX_TOKENS = 10
"""The served base model judges by its score token, the seventh of its reply; its reasons are not worth their time."""


def make_judge(settings: JudgeSettings, vllm: Sequence[str], base_model: str) -> JudgeClient:
    """The judge that the settings name, or else the served base model on the first vLLM replica.

    Raises:
        SettingsError: a judge's address without its model's name.
    """
    if settings.url is None:
        return JudgeClient(
            f"{vllm[0]}/v1", settings.model or base_model, timeout_s=settings.timeout_s, max_tokens=LOCAL_MAX_TOKENS
        )
    if settings.model is None:
        raise SettingsError("judge.model: not set; allowed: the model's name at judge.url")
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return JudgeClient(settings.url, settings.model, api_key=key, timeout_s=settings.timeout_s)

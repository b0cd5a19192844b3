"""One attempt at an answer, timed, and the event that tells of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ratchet.schemas.events import Inference, Shadow
from ratchet.schemas.ids import BASE
from ratchet.services.gateway.answers import Answer
from ratchet.services.gateway.asks import Ask
from ratchet.services.rules.routing import Leg, Route

Status = Literal["ok", "error", "timeout", "cancelled"]
NOTHING = Answer(None)
_MAX_ERROR = 2_000


@dataclass(frozen=True, slots=True)
class Sources:
    """Where time and ids come from, the base model's served name, and which base model an adapter belongs to."""

    now: Callable[[], datetime]
    new_id: Callable[[], str]
    monotonic: Callable[[], float]
    base_model: str
    base_of: Callable[[str], str]

    def served_name(self, adapter: str) -> str:
        """The name that the model server knows an adapter by."""
        return self.base_model if adapter == BASE else adapter


class Attempt:
    """The clock of one attempt: latency and time to first token are its own, not those of attempts before it."""

    def __init__(self, sources: Sources, leg: Leg) -> None:
        """Start the clock."""
        self.leg = leg
        self.at = sources.now()
        self.ttft_ms: float | None = None
        self._monotonic = sources.monotonic
        self._started = sources.monotonic()

    def elapsed_ms(self) -> float:
        """Milliseconds since the start."""
        return max(0.0, (self._monotonic() - self._started) * 1000)

    def token(self) -> None:
        """Note the first token, once."""
        if self.ttft_ms is None:
            self.ttft_ms = self.elapsed_ms()


def inference_event(
    sources: Sources,
    ask: Ask,
    route: Route,
    attempt: Attempt,
    *,
    id: str,
    status: Status,
    answer: Answer = NOTHING,
    error: str | None = None,
    tags: dict[str, str] | None = None,
) -> Inference:
    """Make the production event of one attempt; its latency ends now."""
    return Inference(
        id=id,
        at=attempt.at,
        task=ask.task,
        tenant=ask.tenant,
        conversation_id=ask.conversation_id,
        user=ask.user,
        adapter=attempt.leg.adapter,
        stage=attempt.leg.stage,
        rollout_id=route.rollout_id,
        base_model=sources.base_of(attempt.leg.adapter),
        request=ask.request,
        response=answer.response,
        status=status,
        error=error and error[:_MAX_ERROR],
        latency_ms=attempt.elapsed_ms(),
        ttft_ms=attempt.ttft_ms,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        stream=ask.stream,
        source="gateway",
        tags=ask.tags | tags if tags else ask.tags,
    )


def shadow_event(
    sources: Sources,
    ask: Ask,
    attempt: Attempt,
    *,
    inference_id: str,
    rollout_id: str,
    status: Status,
    answer: Answer = NOTHING,
    error: str | None = None,
) -> Shadow:
    """Make the event of the candidate's answer to a copy; its latency ends now."""
    return Shadow(
        id=sources.new_id(),
        at=attempt.at,
        task=ask.task,
        tenant=ask.tenant,
        conversation_id=ask.conversation_id,
        user=ask.user,
        adapter=attempt.leg.adapter,
        rollout_id=rollout_id,
        inference_id=inference_id,
        base_model=sources.base_of(attempt.leg.adapter),
        request=ask.request,
        response=answer.response,
        status=status,
        error=error and error[:_MAX_ERROR],
        latency_ms=attempt.elapsed_ms(),
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        source="gateway",
        tags=ask.tags,
    )

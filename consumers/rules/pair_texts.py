"""What makes two texts no pair, and how a pair's texts are kept: the same for every source."""

from __future__ import annotations

import orjson

from ratchet.consumers.rules.injections import injection, injection_in
from ratchet.consumers.rules.votes import Answer
from ratchet.schemas.pairing_policy import PairingPolicy


def failed(answer: Answer) -> str | None:
    """An answer that is none teaches nothing."""
    return None if answer.status == "ok" else "failed_answer"


def texts_problem(chosen: str, rejected: str, request: str, policy: PairingPolicy) -> str | None:
    """Why these two texts are no pair, or None."""
    if chosen.strip() == rejected.strip():
        return "identical"
    return _length_problem(chosen, policy) or _length_problem(rejected, policy) or _instructs(request, chosen, rejected)


def answer_problem(answer: Answer, policy: PairingPolicy) -> str | None:
    """Why an answer can be no side of a pair, or None."""
    return failed(answer) or _length_problem(answer.content, policy) or _instructs(answer.request, answer.content)


def _length_problem(text: str, policy: PairingPolicy) -> str | None:
    length = len(text.strip())
    if length < policy.min_chars:
        return "too_short"
    return "too_long" if length > policy.max_chars else None


def _instructs(request: str, *answers: str) -> str | None:
    """On neither side: a model learns from what it is shown as much as from what it is to write."""
    found = any(injection(text) for text in answers) or injection_in(orjson.loads(prompt_of(request)))
    return "instruction_like" if found else None


def prompt_of(request: str) -> str:
    """The messages as the model saw them, as JSON; a bare prompt becomes one user message."""
    value = orjson.loads(request)
    messages = value.get("messages")
    if messages is None:
        prompt = value.get("prompt")
        messages = [{"role": "user", "content": prompt[0] if isinstance(prompt, list) and prompt else prompt or ""}]
    return orjson.dumps(messages).decode()


def message_of(content: str) -> str:
    """An answer as JSON: one message of the assistant."""
    return orjson.dumps([{"role": "assistant", "content": content}]).decode()

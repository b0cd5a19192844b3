"""The demo's app and its users: real requests with the official client, feedback by one printed rule."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ratchet.schemas.errors import ModelError
from ratchet.services.demo.tickets import Conversation, answer, conversations, correct

TASK = "support"
RULE = (
    "a ticket with the right order number gets a thumb up and outcome=true; "
    "any other answer gets a thumb down, outcome=false and the right ticket as a correction"
)
# Enough for a ticket (about 27 tokens); it cuts the base model's prose short.
MAX_TOKENS = 48


@dataclass
class Tally:
    """The ids that the desk was given: what the loop has promised to keep."""

    inference_ids: list[str] = field(default_factory=list)
    feedback_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Answered:
    """One conversation's answer: whether its user finds it right."""

    inference_id: str
    conversation: Conversation
    good: bool


class Desk:
    """Sends conversations through the gateway: a list ``concurrency`` at a time, a steady stream by ``users``."""

    def __init__(self, gateway: str, concurrency: int = 32, users: int = 16) -> None:
        import httpx
        from openai import AsyncOpenAI

        self.tally = Tally()
        self._client = AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=2, timeout=120)
        self._http = httpx.AsyncClient(base_url=gateway, timeout=30)
        self._users = users
        self._slots = asyncio.Semaphore(concurrency)

    async def close(self) -> None:
        """Close both clients."""
        await self._client.close()
        await self._http.aclose()

    async def ask(self, conversation: Conversation) -> Answered:
        """Ask for one ticket and judge it as its user would."""
        async with self._slots:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=TASK,
                messages=[{"role": "user", "content": conversation.message}],
                max_tokens=MAX_TOKENS,
                temperature=0,
                user=conversation.user,
                extra_headers={"x-ratchet-conversation-id": conversation.id},
            )
            inference_id = raw.headers["x-ratchet-inference-id"]
            text = raw.parse().choices[0].message.content or ""
            good = correct(text, conversation.ticket)
            self.tally.inference_ids.append(inference_id)
            return Answered(inference_id, conversation, good)

    async def say(self, answered: Answered) -> None:
        """Send what the user of one conversation says of the answer."""
        inference_id, conversation, good = answered.inference_id, answered.conversation, answered.good
        said: list[dict[str, Any]] = [{"kind": "thumb", "value": good}, {"kind": "outcome", "value": good}]
        if not good:
            said.append({"kind": "correction", "value": answer(conversation.ticket)})
        for item in said:
            body = item | {"inference_id": inference_id, "task": TASK, "user": conversation.user}
            response = await self._http.post("/v1/feedback", json=body)
            if response.status_code != 202:
                raise ModelError(f"feedback was refused: {response.status_code} {response.text}")
            self.tally.feedback_ids.append(response.json()["feedback_id"])

    async def ask_all(
        self, items: list[Conversation], progress: Callable[[int, int], None], feedback: bool = True
    ) -> tuple[int, int]:
        """Ask all of them, then send what their users say once everybody has an answer; (n, correct)."""
        done = 0

        async def one(item: Conversation) -> Answered:
            nonlocal done
            answered = await self.ask(item)
            done += 1
            progress(done, len(items))
            return answered

        results = await asyncio.gather(*(one(item) for item in items))
        if feedback:
            await asyncio.gather(*(self.say(answered) for answered in results))
        return len(results), sum(answered.good for answered in results)

    async def ask_until(self, finished: asyncio.Event, seed: int, progress: Callable[[int], None]) -> None:
        """Keep the users asking, each once done a new one, until ``finished`` is set."""
        stream = _endless(seed)

        async def user() -> None:
            while not finished.is_set():
                await self.say(await self.ask(next(stream)))
                progress(len(self.tally.inference_ids))

        await asyncio.gather(*(user() for _ in range(self._users)))


def _endless(seed: int) -> Iterator[Conversation]:
    for block in itertools.count():
        # The training pool with new seeds: the held-out customers and phrasings stay unseen.
        yield from conversations(seed * 1_000 + block, 200, "train")

"""The demo's app and its users: real requests with the official client, feedback by one printed rule."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
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
    """What the desk saw: ids it was given, and how each answer did."""

    inference_ids: list[str] = field(default_factory=list)
    feedback_ids: list[str] = field(default_factory=list)
    completed: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """(inference id, adapter, stage, correct) in the order of the answers."""

    def of(self, results: Iterable[tuple[str, str, str, bool]]) -> tuple[int, int]:
        """Count (n, correct)."""
        rows = list(results)
        return len(rows), sum(row[3] for row in rows)


class Desk:
    """Sends conversations through the gateway, ``concurrency`` at a time."""

    def __init__(self, gateway: str, concurrency: int = 16) -> None:
        import httpx
        from openai import AsyncOpenAI

        self.tally = Tally()
        self._client = AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=2, timeout=120)
        self._http = httpx.AsyncClient(base_url=gateway, timeout=30)
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)

    async def close(self) -> None:
        """Close both clients."""
        await self._client.close()
        await self._http.aclose()

    async def ask(self, conversation: Conversation, feedback: bool = True) -> bool:
        """Ask for one ticket, judge it as its user would, and send that as feedback."""
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
            self.tally.completed.append(
                (inference_id, raw.headers["x-ratchet-adapter"], raw.headers["x-ratchet-stage"], good)
            )
            if feedback:
                await self._feedback(inference_id, conversation, good)
            return good

    async def _feedback(self, inference_id: str, conversation: Conversation, good: bool) -> None:
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
        """Ask all of them; (n, correct)."""
        done = 0

        async def one(item: Conversation) -> bool:
            nonlocal done
            good = await self.ask(item, feedback)
            done += 1
            progress(done, len(items))
            return good

        results = await asyncio.gather(*(one(item) for item in items))
        return len(results), sum(results)

    async def ask_until(self, finished: asyncio.Event, seed: int, progress: Callable[[int], None]) -> None:
        """Keep ``concurrency`` users asking, each once done a new one, until ``finished`` is set."""
        stream = _endless(seed)

        async def user() -> None:
            while not finished.is_set():
                await self.ask(next(stream))
                progress(len(self.tally.completed))

        await asyncio.gather(*(user() for _ in range(self._concurrency)))


def _endless(seed: int) -> Iterator[Conversation]:
    for block in itertools.count():
        # The training pool with new seeds: the held-out customers and phrasings stay unseen.
        yield from conversations(seed * 1_000 + block, 200, "train")

"""``POST /v1/traces``: OTLP/HTTP spans of model calls become inferences.

Ids are derived from the spans', so an exporter may send a batch again: it is answered with 503 when
the queue is full, and what was taken before that counts once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from ratchet.schemas.errors import BrokerError, InvalidEvent
from ratchet.schemas.events import Inference
from ratchet.services.gateway.emit import Emitter
from ratchet.services.gateway.errors import Refused
from ratchet.services.gateway.http import Headers
from ratchet.services.gateway.metrics import Metrics
from ratchet.services.gateway.otlp import failure, media_type, read_spans, receipt, unpacked
from ratchet.services.gateway.recent import Origins
from ratchet.services.rules.admission import Caller
from ratchet.services.rules.genai import read_span
from ratchet.services.rules.span import BadSpan

_REASONS = 5
_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: bytes


@dataclass(slots=True)
class _Batch:
    """What the spans of one request are."""

    inferences: list[Inference] = field(default_factory=list)
    ignored: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def message(self) -> str:
        """Why spans were rejected, the most frequent reasons first."""
        reasons = self.rejected.most_common(_REASONS)
        more = len(self.rejected) - len(reasons)
        said = "; ".join(f"{count} × {reason[:_REASON_CHARS]}" for reason, count in reasons)
        return said + (f"; and {more} more reasons" if more else "")


class TraceDesk:
    """Takes spans in."""

    def __init__(
        self,
        tasks: Collection[str],
        base_model: str,
        origins: Origins,
        emitter: Emitter,
        metrics: Metrics,
        *,
        max_body_bytes: int,
    ) -> None:
        """Take the parts.

        Args:
            tasks: the declared tasks.
            base_model: the base model's served name.
            origins: notes where each inference came from, so that feedback need not say it.
            emitter: where events go.
            metrics: counts the spans.
            max_body_bytes: larger bodies get a 413, packed or unpacked.
        """
        self._tasks = tasks
        self._base_model = base_model
        self._origins = origins
        self._emitter = emitter
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._reading = asyncio.Lock()

    async def take(self, headers: Headers, body: Callable[[], Awaitable[bytes]], caller: Caller) -> Reply:
        """Take one request's spans.

        Args:
            headers: the request's headers.
            body: reads its body, and refuses one that is too large or too slow.
            caller: whose spans they are.

        Raises:
            Refused: 415, the body is in neither of OTLP's forms; every other answer is in the body's own form.
        """
        media = media_type(headers)
        try:
            raw = await body()
            # A batch can have megabytes: users' requests go on while a thread reads it. One at a time,
            # since more threads would make it no faster, only hold more in memory and take more turns.
            async with self._reading:
                batch = await asyncio.to_thread(self._read, raw, headers, media)
            self._publish(batch, caller)
        except Refused as refused:
            return Reply(refused.status, failure(media, refused.message), media)
        rejected = batch.rejected.total()
        for outcome, count in (("taken", len(batch.inferences)), ("ignored", batch.ignored), ("rejected", rejected)):
            self._metrics.spans.labels(outcome).inc(count)
        return Reply(200, receipt(media, rejected, batch.message()), media)

    def _read(self, raw: bytes, headers: Headers, media: bytes) -> _Batch:
        batch = _Batch()
        for span in read_spans(unpacked(raw, headers, self._max_body_bytes), media):
            try:
                inference = read_span(span, self._tasks, self._base_model)
            except BadSpan as error:
                batch.rejected[str(error)] += 1
                continue
            if inference is None:
                batch.ignored += 1
            else:
                batch.inferences.append(inference)
        return batch

    def _publish(self, batch: _Batch, caller: Caller) -> None:
        offered, batch.inferences = batch.inferences, []
        for one in offered:
            inference = one.model_copy(update={"tenant": caller.tenant})
            if self._origins.foreign(inference.id, caller):
                batch.rejected["the span is another tenant's"] += 1
                continue
            try:
                self._emitter.offer(inference)
            except InvalidEvent as error:
                batch.rejected[f"too large: {error}"] += 1
                continue
            except BrokerError as error:
                raise Refused(503, f"Not all was taken, send it again: {error}", code="queue_full") from None
            batch.inferences.append(inference)
            self._origins.put(inference.id, inference.conversation_id, inference.tenant, inference.task)

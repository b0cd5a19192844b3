"""To a gateway: inferences in batches to ``/v1/events``, feedback one by one to ``/v1/feedback``.

Each endpoint has a scope of its own, so an app whose key may send feedback needs no more; and the
gateway knows the task and the tenant of an inference that it served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from ratchet.infra import clock
from ratchet.schemas.events import Feedback, Inference
from ratchet.services.rules.sending import Outcome, Parcel, fit, read_answer, retry_after_s
from ratchet.services.sending.events import checked, encoded
from ratchet.services.sending.outbox import BATCH_BYTES

EVENTS = "/v1/events"
FEEDBACK = "/v1/feedback"
_ANY_TASK = "any"
"""Stands in for the task that the gateway will look up, while the rest is checked."""


class Http:
    """Packs events for a gateway and makes connections to it."""

    source = "http"

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        """Name the gateway.

        Args:
            url: ``http(s)://host[:port]``, with or without ``/v1``.
            api_key: ``rk_…``, None for an open gateway.
            timeout_s: the longest silence of the gateway.

        Raises:
            ValueError: not such an address, or a key that no header can carry.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url {url!r}; allowed: http(s)://host[:port], the gateway's address")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("api_key: not shown; allowed: printable ASCII, as `ratchet keys create` gave it")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s

    def event(self, event: Inference | Feedback) -> Parcel:
        """Pack a whole event; a tenant that was not named is left to the gateway, which knows the key's."""
        unsaid = frozenset({"tenant"}) - event.model_fields_set
        return Parcel(event.id, EVENTS, encoded(event, unsaid))

    def feedback(self, said: Mapping[str, Any]) -> Parcel:
        """Pack feedback; without a task the gateway looks for it by the inference or the conversation.

        Raises:
            InvalidEvent: names the field.
        """
        whole = {"task": _ANY_TASK, "at": clock.now(), "source": self.source, **said}
        return Parcel(checked(Feedback, whole).id, FEEDBACK, orjson.dumps(said))

    def connect(self) -> HttpLink:
        """Make a connection."""
        client = httpx.Client(base_url=self._url, headers=self._headers, timeout=self._timeout_s)
        return HttpLink(client)


class HttpLink:
    """A kept-alive connection to the gateway."""

    def __init__(self, client: httpx.Client) -> None:
        """Take the HTTP client, which this object then owns."""
        self._client = client

    def fit(self, waiting: deque[Parcel], most: int) -> int:
        """Count the front that goes to one endpoint: feedback goes one by one."""
        to = waiting[0].to
        if to == FEEDBACK:
            return 1
        return fit((len(parcel.body) for parcel in takewhile(lambda one: one.to == to, waiting)), most, BATCH_BYTES)

    def deliver(self, batch: Sequence[Parcel]) -> Outcome:
        """Send one request; events are idempotent by their ids, so an answer that got lost is no harm."""
        body = b"\n".join(parcel.body for parcel in batch)
        kind = "application/json" if batch[0].to == FEEDBACK else "application/x-ndjson"
        try:
            response = self._client.post(batch[0].to, content=body, headers={"content-type": kind})
        except httpx.RequestError as error:
            problem = f"{self._client.base_url}: {error or type(error).__name__}"
            return Outcome(tuple(range(len(batch))), problem=problem)
        asked_s = retry_after_s(response.headers, clock.now())
        return read_answer(response.status_code, response.content, len(batch), asked_s)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

"""The door of the gateway and of the API: every request but the health checks passes it before its body is read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

from ratchet.infra.keys import Keyring
from ratchet.schemas.keys import Key, KeyScope
from ratchet.services.gateway.errors import Refused
from ratchet.services.rules.admission import ANYONE, Bucket, Caller, Denial, identify, take


class Door:
    """Admits requests by the keys of the moment.

    Each key's limit is counted in this process: several gateways admit it that many times.
    """

    def __init__(
        self, ring: Keyring | None, stale: Callable[[bool], object], monotonic: Callable[[], float], poll_s: float
    ) -> None:
        """Take the parts.

        Args:
            ring: the keys; None: this gateway knows none.
            stale: told at each look whether the key file could not be read.
            monotonic: the clock of the limits, seconds that only grow.
            poll_s: seconds between looks at the key file.
        """
        self._ring = ring
        self._stale = stale
        self._monotonic = monotonic
        self._poll_s = poll_s
        self._buckets: dict[str, Bucket] = {}

    def admit(self, headers: Iterable[tuple[bytes, bytes]], scope: KeyScope) -> Caller:
        """Let a request in.

        Raises:
            Refused: 401 without a valid key, 403 without the scope, 429 above the key's limit.
        """
        keys = self._ring.keys if self._ring is not None else None
        if keys is None:
            return ANYONE
        sent = next((value for name, value in headers if name == b"authorization"), None)
        found = identify(keys, sent, scope)
        if isinstance(found, Denial):
            extra = [(b"www-authenticate", found.challenge.encode())] if found.challenge else []
            raise Refused(found.status, found.message, code=found.code, headers=extra)
        if found.requests_per_minute is not None:
            self._count(found, found.requests_per_minute)
        return Caller(found.tenant, bound=True, name=found.name)

    def _count(self, key: Key, per_minute: int) -> None:
        self._buckets[key.id], wait_s = take(self._buckets.get(key.id), per_minute, self._monotonic())
        if wait_s:
            message = f"Rate limit reached for the API key {key.id}: {per_minute} requests a minute; try again later"
            # OpenAI's clients prefer the milliseconds; everyone else reads whole seconds.
            extra = [
                (b"retry-after", b"%d" % math.ceil(wait_s)),
                (b"retry-after-ms", b"%d" % math.ceil(wait_s * 1000)),
            ]
            raise Refused(429, message, code="rate_limit_exceeded", headers=extra)

    async def follow(self) -> None:
        """Notice new, changed and revoked keys, for ever, off the requests' path."""
        while self._ring is not None:
            await asyncio.sleep(self._poll_s)
            await asyncio.to_thread(self._ring.refresh)
            self._stale(self._ring.problem is not None)

"""Looking for what there is to do, again and again, over the absence of what it is found in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from ratchet.schemas.errors import BrokerError, StoreError


async def keep_looking(
    look: Callable[[], Awaitable[object]], stop: asyncio.Event, every_s: float, log: logging.Logger, waits: str
) -> None:
    """Look until ``stop`` is set; what is away is waited for and said once.

    Args:
        look: one look; what it raises besides StoreError and BrokerError ends this.
        stop: asked between looks.
        every_s: seconds between two.
        log: where an absence is said.
        waits: what waits meanwhile, as the message begins.
    """
    said = ""
    while not stop.is_set():
        try:
            await look()
            said = ""
        except (StoreError, BrokerError) as error:
            if str(error) != said:
                said = str(error)
                log.warning("%s: %s", waits, said)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)

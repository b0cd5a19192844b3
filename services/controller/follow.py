"""Running the controller on Kafka: its state comes from the topics before it stands for the lead."""

from __future__ import annotations

import asyncio
import logging

from ratchet.infra.kafka.tail import Tail
from ratchet.schemas.topics import ADAPTER, GATEWAY, ROLLOUT
from ratchet.services.controller.controller import Controller

log = logging.getLogger("ratchet.controller")
SAY_S = 10.0


async def control(controller: Controller, bootstrap: str, stop: asyncio.Event) -> None:
    """Follow the state topics and run the controller until ``stop`` is set.

    Nothing is decided before all of them were read to their end, however long Kafka takes. A standby follows likewise.
    """
    # adapters first: a routing table names adapters whose paths the registry knows; gateways last: what they say
    # is of tables
    tails = [Tail(bootstrap, topic, controller.receive) for topic in (ADAPTER, ROLLOUT, GATEWAY)]
    try:
        for tail in tails:
            tail.start()
            while not stop.is_set() and not await asyncio.to_thread(tail.caught_up, SAY_S):
                log.warning("still reading the state topics at %s", bootstrap)
        if not stop.is_set():
            controller.lead.follow(tails[1])
        await controller.run(stop)
    finally:
        await asyncio.to_thread(controller.lead.close)
        for tail in tails:
            await asyncio.to_thread(tail.close)

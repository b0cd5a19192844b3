"""Run the operators' API: take the port, serve until a signal."""

from __future__ import annotations

import signal
import time
from typing import Any

import uvicorn

from ratchet.infra import clock
from ratchet.infra.settings import Settings
from ratchet.schemas.rollout_events import Operator
from ratchet.services import wiring
from ratchet.services.api.app import BODY_S, Api, Desk, Instruction, Verb
from ratchet.services.gateway.door import Door
from ratchet.services.gateway.patience import patient
from ratchet.services.gateway.serve import listen
from ratchet.services.operator.ask import Answer, ask
from ratchet.services.operator.status import standings
from ratchet.services.operator.why import account, transitions
from ratchet.services.rules.since import instant

KEYS_POLL_S = 1.0
_HEADERS_S = 10.0
_SHUTDOWN_S = 30


def desk(s: Settings) -> Desk:
    """What the API does, on the parts that the settings name; each call has a connection of its own."""

    def look(task: str | None) -> list[dict[str, Any]]:
        with wiring.store(s) as store:
            return [one.as_json() for one in standings(store, s.tasks, clock.now(), s.prioritises, task)]

    def why(task: str, at: str) -> dict[str, Any]:
        now = clock.now()
        with wiring.store(s) as store:
            return account(store, task, instant(at, now) if at else now, now).as_json()

    def log(task: str) -> list[dict[str, Any]]:
        with wiring.store(s) as store:
            return transitions(store, task, clock.now())

    def instruct(task: str, verb: Verb, told: Instruction) -> Answer:
        said = told.model_dump(exclude_none=True)
        return ask(s, Operator(id=clock.new_id(), at=clock.now(), task=task, verb=verb, **said))

    return Desk(look, why, log, instruct)


def run(s: Settings) -> None:
    """Serve until SIGINT or SIGTERM; then finish what is in flight.

    Raises:
        StartError: the address cannot be had, or is not loopback's while there is no key.
        KeysError: there is a key file and it cannot be used.
    """
    ring = wiring.keyring(s)
    listener = listen(s.api_host, s.api_port, keyed=ring.keys is not None, part="api", scopes="--scope admin")
    door = Door(ring, lambda _: None, time.monotonic, KEYS_POLL_S)
    config = uvicorn.Config(
        Api(desk(s), door),
        http=patient(_HEADERS_S + BODY_S),
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    # uvicorn raises the signal again once it is done: by then there is nothing left to interrupt
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # how a person ends it
    finally:
        signal.signal(signal.SIGTERM, before)
        listener.close()

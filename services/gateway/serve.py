"""Run the gateway: take the port, follow the routing tables, serve until a signal, leave cleanly."""

from __future__ import annotations

import ipaddress
import re
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType

import uvicorn

from ratchet.infra.kafka.admin import wait_for_broker
from ratchet.infra.kafka.publisher import Publisher
from ratchet.infra.kafka.spooled import SpoolStatus
from ratchet.infra.kafka.tail import Tail
from ratchet.infra.keys import Keyring
from ratchet.schemas.errors import BrokerError, StartError
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.topics import ADAPTER, ROLLOUT
from ratchet.services.gateway.assemble import create_app
from ratchet.services.gateway.manifests import Manifests
from ratchet.services.gateway.options import GatewayOptions
from ratchet.services.gateway.patience import patient
from ratchet.services.gateway.routes import RoutingTables

_SHUTDOWN_S = 30
_BACKLOG = 2048
_BROKER_S = 1.0
_HEADERS_S = 10.0
_TABLES = "routing tables"


def serve(
    tasks: Mapping[str, TaskPolicy],
    *,
    base_model: str,
    upstreams: Sequence[str],
    bootstrap: str,
    listener: socket.socket,
    publisher: Publisher,
    keys: Keyring,
    spool: Callable[[], SpoolStatus] | None = None,
    accepts: Callable[[], bool] = lambda: True,
    options: GatewayOptions = GatewayOptions(),
) -> None:
    """Serve until SIGINT or SIGTERM; then finish what is in flight, flush the publisher and close it.

    Args:
        tasks: the declared tasks by name.
        base_model: the base model's served name.
        upstreams: the model servers' addresses, without ``/v1``.
        bootstrap: Kafka's bootstrap servers, for the routing tables.
        listener: from `listen`; closed at the end.
        publisher: takes the events; closed at the end.
        keys: who may do what; followed while the gateway runs.
        spool: what the publisher's spool holds, where it has one.
        accepts: whether the publisher takes events.
        options: the operator's choices.
    """
    routes = RoutingTables()
    manifests = Manifests()
    tails = {_TABLES: Tail(bootstrap, ROLLOUT, routes.apply)}
    if options.pools:
        tails["adapter manifests"] = Tail(bootstrap, ADAPTER, manifests.apply)
    app = create_app(
        tasks,
        base_model,
        upstreams,
        publisher,
        routes,
        manifests=manifests,
        keys=keys,
        needed={name: partial(tail.caught_up, 0.0) for name, tail in tails.items()} | {"spool": accepts},
        wanted={"broker": lambda: broker_answers(bootstrap)},
        silences={name: tail.silent_s for name, tail in tails.items()},
        spool=spool,
        name=own_name(listener),
        known=partial(tails[_TABLES].caught_up, 0.0),
        options=options,
    )
    config = uvicorn.Config(
        app,
        loop="auto" if sys.platform == "win32" else "uvloop",
        http=patient(_HEADERS_S + options.body_timeout_s),
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nothing here asks for the client's address
        server_header=False,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    # uvicorn raises the signal again once it is done: by then there is nothing left to interrupt.
    before = signal.signal(signal.SIGTERM, _leave)
    for tail in tails.values():
        tail.start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # Ctrl-C is how a person ends it, and uvicorn has shut down already
    finally:
        signal.signal(signal.SIGTERM, before)
        listener.close()
        for tail in tails.values():
            tail.close()
        publisher.close()


def _leave(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def listen(
    host: str, port: int, *, keyed: bool, part: str = "gateway", scopes: str = "--scope infer --scope feedback"
) -> socket.socket:
    """Bind the address before anything else starts, so that a taken one is one sentence.

    Args:
        host: the address.
        port: the port.
        keyed: whether a key was ever created; until then only this machine may reach the part.
        part: who listens, for messages.
        scopes: what its first key needs, likewise.

    Raises:
        StartError: not a loopback address without a key, or the address cannot be bound.
    """
    if not keyed and not _is_loopback(host):
        raise StartError(
            f"{part}: {host} can be reached from other machines and there are no keys yet; make one with"
            f" `ratchet keys create --name app {scopes}`, or listen on 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"{part}: cannot listen on {host} port {port}: {error.strerror or error}") from None
    return listener


def own_name(listener: socket.socket) -> str:
    """What this process is called among gateways: its host, its port and a number that no other process has."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:100]
    return f"{host}:{listener.getsockname()[1]}:{secrets.token_hex(3)}".lstrip(".-:")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def broker_answers(bootstrap: str) -> bool:
    """Whether Kafka's metadata can be had now."""
    try:
        wait_for_broker(bootstrap, _BROKER_S)
    except BrokerError:
        return False
    return True

"""`ratchet rollout export`: a task's routing for those who keep their own edge."""

from __future__ import annotations

import logging
import shlex
import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ratchet.infra.settings import Settings
    from ratchet.services.edge import EdgeFile, EdgeText
    from ratchet.services.gateway.manifests import Manifests
    from ratchet.services.gateway.routes import RoutingTables

log = logging.getLogger("ratchet.edge")
_PATIENCE_S = 30.0


class Format(StrEnum):
    """What kind of edge reads it."""

    nginx = "nginx"
    gateway_api = "gateway-api"


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise typer.BadParameter(f"{command!r}: {error}; allowed: words, quoted as in a shell") from None


def export(
    task: Annotated[str, typer.Argument(help="the task's name")],
    format: Annotated[Format, typer.Option("--format", help="nginx: an include; gateway-api: an HTTPRoute")],
    out: Annotated[Path | None, typer.Option("--out", help="the file; none: standard output")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="again with every new table, until Ctrl-C")] = False,
    check: Annotated[
        str, typer.Option("--check", help="command that refuses a bad file before it is put in place; {} is the file")
    ] = "",
    reload: Annotated[str, typer.Option("--reload", help="command that makes the edge read it; no shell")] = "",
    confirm: Annotated[
        str | None, typer.Option("--confirm", help="URL of the edge that answers with header x-ratchet-table")
    ] = None,
    longest: Annotated[
        float, typer.Option("--longest", min=0, help="seconds within which every answer ends: the edge counts none")
    ] = 600.0,
    name: Annotated[
        str | None, typer.Option("--name", help="in acknowledgements, edge:<task>:<host>:<name>; none: the format")
    ] = None,
) -> None:
    """Write a task's routing as nginx upstreams or a Gateway API route, once or with every new table."""
    from ratchet.infra.clock import new_id, now
    from ratchet.infra.kafka.tail import Tail
    from ratchet.schemas.errors import BrokerError, SettingsError
    from ratchet.schemas.events import Event
    from ratchet.schemas.topics import ADAPTER, ROLLOUT
    from ratchet.services import edge, wiring
    from ratchet.services.gateway.manifests import Manifests
    from ratchet.services.gateway.routes import RoutingTables

    if out is None and (follow or check or reload or confirm):
        raise typer.BadParameter("--follow, --check, --reload and --confirm need --out, the file that the edge reads")
    settings = wiring.settings()
    if task not in settings.tasks:
        raise SettingsError(f"task {task!r} is not declared; allowed: {', '.join(settings.tasks) or 'none'}")
    routes, manifests = RoutingTables(), Manifests()
    wake, stop = threading.Event(), threading.Event()

    def changed(event: Event) -> None:
        routes.apply(event)
        manifests.apply(event)
        wake.set()

    tails = [Tail(settings.kafka, topic, changed) for topic in ((ROLLOUT, ADAPTER) if settings.pools else (ROLLOUT,))]
    text = _text(settings, task, format, routes, manifests)
    file = edge.EdgeFile(out, _words(check), _words(reload), confirm) if out else None
    try:
        for tail in tails:
            tail.start()
        if not follow or file is None:
            if not all(tail.caught_up(_PATIENCE_S) for tail in tails):
                raise BrokerError(f"Kafka at {settings.kafka} did not answer within {_PATIENCE_S:g} s")
            _write(text(), file)
            return
        _until_signal(wake, stop)
        while not stop.is_set() and not all(tail.caught_up(1.0) for tail in tails):
            log.debug("still reading the routing tables at %s", settings.kafka)
        publisher = wiring.publisher(settings, "ratchet-edge")
        try:
            presence = edge.Presence(edge.edge_id(task, name or format), task, longest)
            edge.follow(presence, file, text, publisher, wake, stop, now=now, new_id=new_id)
        finally:
            publisher.close()
    finally:
        for tail in tails:
            tail.close()


def _text(
    s: Settings, task: str, format: Format, routes: RoutingTables, manifests: Manifests
) -> Callable[[], EdgeText]:
    """Make the function that writes the file for the newest table."""
    from ratchet.services import wiring
    from ratchet.services.edge import EdgeText
    from ratchet.services.gateway.pools import base_of
    from ratchet.services.rules.edge import edge_routing
    from ratchet.services.rules.edge_files import http_route, nginx

    policy, placement, base = s.tasks[task].edge, wiring.placement(s), base_of(manifests, s.base_model)

    def replicas(adapter: str) -> tuple[str, ...]:
        adapters = routes.adapters | {adapter}
        return placement.of(adapters, {name: base(name) for name in adapters})[adapter]

    def text() -> EdgeText:
        routing = edge_routing(task, routes.get(task), policy, replicas)
        adapters = frozenset(arm.adapter for arm in (routing.stable, routing.candidate) if arm)
        return EdgeText(routing.version, (nginx if format is Format.nginx else http_route)(routing, policy), adapters)

    return text


def _write(text: EdgeText, file: EdgeFile | None) -> None:
    if file is None:
        typer.echo(text.content, nl=False)
    else:
        file.put(text)


def _until_signal(wake: threading.Event, stop: threading.Event) -> None:
    def end(*_: object) -> None:
        stop.set()
        wake.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)

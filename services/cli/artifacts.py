"""`ratchet adapters push` and `pull`: the artifact store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.schemas.events import Adapter
    from ratchet.trainers.adapters.shelf import Shelf

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Name = Annotated[str | None, typer.Argument(help="task@vN-sha8; none with --all")]
All = Annotated[bool, typer.Option("--all", help="every registered adapter that has files")]


def push(name: Name = None, every: All = False, as_json: Json = False) -> None:
    """Publish adapters in the artifact store; the training worker does it by itself where `artifacts` is set."""
    settings = wiring.settings()
    shelf, rows = wiring.shelf(settings), []
    for adapter in _chosen(settings, name, every):
        new = shelf.push(adapter)
        rows.append({"name": adapter.name, "published": new})
        if not as_json:
            typer.echo(f"{adapter.name}: {'published' if new else 'was published already'}")
    if as_json:
        typer.echo(json.dumps(rows))


def pull(name: Name = None, every: All = False, as_json: Json = False) -> None:
    """Fetch adapters from the artifact store and check them; what is here already is only checked."""
    settings = wiring.settings()
    shelf, rows = wiring.shelf(settings), []
    for adapter in _chosen(settings, name, every, shelf):
        folder = str(shelf.pull(adapter))
        rows.append({"name": adapter.name, "path": folder})
        if not as_json:
            typer.echo(f"{adapter.name}: {folder}")
    if as_json:
        typer.echo(json.dumps(rows))


def _chosen(settings: Settings, name: str | None, every: bool, shelf: Shelf | None = None) -> list[Adapter]:
    """The adapters that are meant; one that ClickHouse does not know may still be published (``shelf``)."""
    from ratchet.schemas.errors import RolloutError
    from ratchet.services.controller.seed import adapters

    if (name is None) != every:
        raise typer.BadParameter("name an adapter, or give --all", param_hint="NAME")
    with wiring.store(settings) as store:
        known = adapters(store)
    if every:
        return [one for one in known if one.status == "registered" and one.files]
    found = next((one for one in known if one.name == name), None)
    if found is None and shelf is not None and name is not None:
        found = shelf.published(name)
    if found is None or name is None:
        raise RolloutError(f"{name!r} is not in the registry; `ratchet adapters list` shows what is")
    return [found]

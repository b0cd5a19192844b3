"""`ratchet adapters`: the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.services.cli.artifacts import pull, push
from ratchet.services.cli.collect import gc
from ratchet.services.cli.lineage import lineage
from ratchet.services.cli.models import export, merge, quantize

if TYPE_CHECKING:
    from ratchet.schemas.events import Adapter
    from ratchet.schemas.rollout_events import Rollout

app = typer.Typer(help="The adapters that training made.", no_args_is_help=True)
for _command in (lineage, merge, export, quantize, push, pull, gc):
    app.command()(_command)

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


@app.command("list")
def list_adapters(
    task: Annotated[str | None, typer.Argument(help="one task; none: all")] = None, as_json: Json = False
) -> None:
    """Show every adapter, the newest last, and what it serves as."""
    import orjson

    found, tables = _read()
    chosen = [adapter for adapter in found if task in (None, adapter.task)]
    if as_json:
        rows = [
            {
                "name": adapter.name,
                "label": adapter.label,
                "task": adapter.task,
                "status": adapter.status,
                "serves_as": serves_as(adapter.name, tables.get(adapter.task)),
                "method": adapter.method,
                "dataset": adapter.dataset,
                "at": adapter.at,
            }
            for adapter in chosen
        ]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    for adapter in chosen:
        role = serves_as(adapter.name, tables.get(adapter.task)) or adapter.status
        made = f"{adapter.at:%Y-%m-%d %H:%M} UTC"
        typer.echo(f"{adapter.name:<32} {role:<11} {adapter.method:<4} {adapter.dataset:<24} {made}  {adapter.label}")
    if not chosen:
        typer.echo("no adapter is registered yet")


@app.command()
def show(name: Annotated[str, typer.Argument(help="task@vN-sha8")], as_json: Json = False) -> None:
    """Show one adapter's manifest: data, parents, parameters, metrics, evaluation."""
    import orjson

    from ratchet.schemas.errors import RolloutError

    found, tables = _read()
    adapter = next((one for one in found if one.name == name), None)
    if adapter is None:
        raise RolloutError(f"{name!r} is not in the registry; `ratchet adapters list` shows what is")
    if as_json:
        typer.echo(orjson.dumps(adapter.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
        return
    role = serves_as(name, tables.get(adapter.task))
    body = adapter.model_dump(mode="json", exclude={"schema_", "id", "name"}) | {"serves_as": role or "nothing now"}
    typer.echo(name)
    for key, value in body.items():
        if value not in ("", [], {}):
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            typer.echo(f"  {key:<16} {text}")


@app.command()
def upgrade(
    base: Annotated[str, typer.Option(help="under [pools]: whose base model is the new one")],
    task: Annotated[str | None, typer.Option(help="one task; none: all")] = None,
    as_json: Json = False,
) -> None:
    """Retrain every live adapter's recipe and data on a new base model; each goes through evaluation and rollout."""
    import orjson

    from ratchet.services import wiring
    from ratchet.services.learning import upgrade as ask

    requests = ask(wiring.settings(), base, task)
    if as_json:
        typer.echo(orjson.dumps([one.model_dump(mode="json") for one in requests], option=orjson.OPT_INDENT_2))
        return
    for one in requests:
        typer.echo(f"{one.task}: {one.reason} (job {one.job_id})")
    typer.echo(f"{len(requests)} trainings asked for; `ratchet train-worker` does them one after the other")


def serves_as(name: str, table: Rollout | None) -> str | None:
    """An adapter's place in its task's routing table: stable, candidate or previous; None for none."""
    if table is None:
        return None
    places = {"stable": table.stable, "previous": table.previous}
    if table.status in ("running", "paused"):
        places["candidate"] = table.candidate
    return next((place for place, held in places.items() if held == name), None)


def _read() -> tuple[list[Adapter], dict[str, Rollout]]:
    from ratchet.services import wiring
    from ratchet.services.controller.seed import adapters, rollouts

    with wiring.store(wiring.settings()) as store:
        return adapters(store), {table.task: table for table in rollouts(store)}

"""`ratchet import`: logs of other systems become events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ratchet.services import wiring

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]

app = typer.Typer(no_args_is_help=True, help="Turn logs of other systems into events.")


@app.callback()
def _imports() -> None:
    """Turn logs of other systems into events."""  # a callback keeps `import jsonl` a sub-command while it is alone


@app.command("jsonl")
def import_jsonl(
    file: Annotated[Path, typer.Argument(help="a JSON array, a JSON document that holds one, or JSONL")],
    map_file: Annotated[Path, typer.Option("--map", help="the map, TOML; examples/pandalm.toml is one")],
    dry_run: Annotated[bool, typer.Option(help="check every record and publish nothing")] = False,
    wait: Annotated[bool, typer.Option(help="wait until ClickHouse has every event")] = False,
    as_json: Json = False,
) -> None:
    """Import any JSON or JSONL log by a map; importing it again adds nothing."""
    from ratchet.infra.kafka.admin import wait_for_broker
    from ratchet.services.importing import jsonl
    from ratchet.services.importing.records import load_map

    mapping = load_map(map_file)
    report = jsonl.check(file, mapping)
    if not dry_run:
        settings = wiring.settings()
        wait_for_broker(settings.kafka, 10)
        publisher = wiring.publisher(settings, "ratchet-import")
        try:
            jsonl.publish(file, mapping, report, publisher)
        finally:
            publisher.close()
        if wait:
            with wiring.store(settings) as store:
                jsonl.wait_stored(file, mapping, report, store)
    if as_json:
        typer.echo(json.dumps(report.as_json() | {"task": mapping.task, "dry_run": dry_run}))
        return
    made = ", ".join(f"{n} {name}" for name, n in report.events.items())
    typer.echo(f"{report.records} records of {file} become {made} for task {mapping.task}")
    for problem in report.examples:
        typer.echo(f"  left out: {problem}")
    if report.bad > len(report.examples):
        typer.echo(f"  … and {report.bad - len(report.examples)} more")
    typer.echo("nothing published (--dry-run)" if dry_run else f"{report.published} events delivered to Kafka")
    if report.stored is not None:
        typer.echo(f"{report.stored} events are in ClickHouse")

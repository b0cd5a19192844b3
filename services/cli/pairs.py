"""`ratchet pairs`: what became of the feedback."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def pairs(
    task: Annotated[str, typer.Option("--task", help="one task; without it, all of them")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Count preference pairs: built and dropped, by source and reason."""
    from ratchet.services import wiring
    from ratchet.services.rules.pair_summary import summary

    with wiring.store(wiring.settings()) as store:
        rows = store.query("pair_counts", task=task)
    counts = summary(rows)
    if as_json:
        typer.echo(json.dumps(counts | {"rows": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "source", "status", "reason", "split", "n", title="preference pairs")
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("task", "source", "status", "reason", "split", "n")))
    console = Console()
    console.print(table)
    console.print(f"{counts['built']} built, {sum(counts['dropped'].values())} dropped")

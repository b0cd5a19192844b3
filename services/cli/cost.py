"""`ratchet cost`: what the traffic cost."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def cost(
    task: Annotated[str, typer.Option("--task", help="one task; without it, all of them")] = "",
    since: Annotated[str, typer.Option("--since", help="30m, 24h, 7d, 2w, a date or a time with a zone")] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Show tokens and USD by task and adapter, shadow copies and judges apart; what is unknown is never 0."""
    from ratchet.infra import clock
    from ratchet.services import wiring
    from ratchet.services.rules.cost import spent
    from ratchet.services.rules.since import instant

    try:
        start = instant(since, clock.now())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    settings = wiring.settings()
    with wiring.store(settings) as store:
        rows = spent(store.query("cost", task=task, since=start), settings.prices)
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in rows]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"cost since {start:%Y-%m-%d %H:%M} UTC")
    for name in ("task", "use", "answered by"):
        table.add_column(name)
    for name in ("requests", "prompt tokens", "completion tokens", "USD", "USD per request", "unknown"):
        table.add_column(name, justify="right")
    for row in rows:
        counts = (f"{count:,}" for count in (row.n, row.prompt_tokens, row.completion_tokens))
        total, mean = (_usd(row.cost_usd, 4), _usd(row.per_request_usd, 8))
        table.add_row(row.task, row.use, row.name, *counts, total, mean, f"{row.unknown:.0%}")
    console = Console()
    console.print(table)
    known = [row.cost_usd for row in rows if row.cost_usd is not None]
    missing = sum(round(row.unknown * row.n) for row in rows)
    console.print(
        f"{_usd(sum(known) if known else None, 4)} USD, and {missing:,} calls of unknown cost"
        " (no price in the settings, or no token counts)"
    )


def _usd(amount: float | None, digits: int) -> str:
    return "unknown" if amount is None else f"{amount:,.{digits}f}"

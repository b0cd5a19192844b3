"""`ratchet alerts`: what a person should look at."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def alerts(
    task: Annotated[str, typer.Option("--task", help="one task; without it, all of them")] = "",
    state: Annotated[str, typer.Option("--state", help="open, acknowledged or resolved; without it, every state")] = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest N")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Show alerts, the newest first: what was seen and what to do."""
    from ratchet.schemas.errors import SettingsError
    from ratchet.services import wiring

    if state not in ("", "open", "acknowledged", "resolved"):
        raise SettingsError(f"--state {state!r}; allowed: open, acknowledged, resolved")
    with wiring.store(wiring.settings()) as store:
        rows = store.query("alerts", task=task, state=state, most=limit)
    for row in rows:
        for name in ("at", "since"):
            row[name] = row[name].isoformat().replace("+00:00", "Z") if row[name] else None
        row["evidence"] = json.loads(row["evidence"])
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['at']}  {row['severity']}, {row['state']}  {row['title']}")
        about = f"task {row['task']}, " if row["task"] else ""
        rate = row["false_alarms_per_year"]
        expected = f" (false alarms expected of this rule: {rate:.2g} a year)" if rate is not None else ""
        typer.echo(f"    {about}{row['summary']}{expected}")
        typer.echo(f"    {row['action']}" + (f" ({row['runbook']})" if row["runbook"] else ""))
    typer.echo(f"{len(rows)} alerts" + (", the newest" if len(rows) == limit else ""))

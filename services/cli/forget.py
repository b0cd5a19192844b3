"""`ratchet forget`: a user's deletion request."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ratchet.services import wiring


def forget(
    user: Annotated[str | None, typer.Option(help="the user as events carry it (a hash)")] = None,
    name: Annotated[str | None, typer.Option(help="or the name that the app gave, hashed as the gateway does")] = None,
    tenant: Annotated[str, typer.Option(help="only events of this tenant")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list what holds the user's data")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Delete a user's events and all that was made of them, for good; makes datasets again without them."""
    from dataclasses import asdict

    from ratchet.schemas.ids import hash_user
    from ratchet.services.forgetting import forget as run

    if (user is None) == (name is None):
        raise typer.BadParameter("allowed: exactly one of --user, --name", param_hint="--user")
    report = run(wiring.settings(), user or hash_user(name or ""), tenant=tenant, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    typer.echo(f"user {report.who[:12]}…: {'would be deleted' if dry_run else 'deleted'}:")
    counts = ", ".join(f"{n} {kind}" for kind, n in report.events.items())
    typer.echo(f"  events: {counts}; {report.scores} scores of them")
    for task, n in report.pairs.items():
        again = "" if dry_run else "; all of its pairs were derived again"
        typer.echo(f"  {n} pairs of task {task}{again}")
    for one in report.datasets:
        new = f"; erased, the rest is {one['replaced_by'] or 'nothing'}" if "replaced_by" in one else ""
        typer.echo(f"  dataset {one['version']} ({one['task']}, {one['kind']}): {one['rows']} rows{new}")
    for path, n in report.anchors.items():
        typer.echo(f"  {n} anchors of {path}")
    for path in report.copies:
        typer.echo(f"  {path}")
    if report.judge_cache is not None:
        typer.echo(f"  the judge's cache: {report.judge_cache} values, of all users")
    typer.echo("not changed:")
    for one in report.adapters:
        typer.echo(f"  adapter {one['name']} ({one['status']}) was trained on dataset {one['dataset']}: retrain it")
    for path, n in report.evaluation.items():
        typer.echo(f"  {path}: {n} frozen prompts that the user asked; replace them")
    for what in report.not_reached:
        typer.echo(f"  {what}")
    if report.behind != 0:
        why = "Kafka is away" if report.behind is None else f"ingest has {report.behind} records yet to read"
        typer.echo(f"run it again later: {why}, and some may be the user's")

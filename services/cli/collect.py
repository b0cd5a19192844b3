"""`ratchet adapters gc`: give the files back of what can neither be served nor rolled back to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.services.collecting import Report


def gc(
    keep: Annotated[int, typer.Option(min=0, help="of each task, adapters that were stable once and stay")] = 3,
    jobs: Annotated[int, typer.Option(min=0, help="ended jobs that keep their weights, rows and log")] = 20,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Retire adapters that no routing table names and nobody can undo to; their manifests and names stay."""
    from dataclasses import asdict

    from ratchet.services.collecting import collect

    if as_json and not (dry_run or yes):
        raise typer.BadParameter("allowed with --dry-run or --yes: it cannot ask", param_hint="--json")

    def sure(report: Report) -> bool:
        if yes or not (report.retired or report.jobs or report.scratch or report.uploads):
            return True
        _tell(report)
        return typer.confirm("remove these files?")

    report = collect(wiring.settings(), keep=keep, keep_jobs=jobs, dry_run=dry_run, sure=sure)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    _tell(report)
    typer.echo(f"{report.bytes / 1e6:.1f} MB {'could be given back' if report.dry_run else 'given back'}")


def _tell(report: Report) -> None:
    for kept in report.kept:
        typer.echo(f"  stays    {kept['name']}: {kept['reason']}")
    for gone in report.retired:
        where = " and in the artifact store" if gone["published"] else ""
        typer.echo(f"  retired  {gone['name']}: {gone['reason']} ({int(str(gone['bytes'])) / 1e6:.1f} MB here{where})")
    for what, names in (("job", report.jobs), ("scratch", report.scratch), ("upload", report.uploads)):
        for name in names:
            typer.echo(f"  {what:<8} {name}")

"""`ratchet jobs`: what is trained, what became of it, and an end to it."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

app = typer.Typer(help="Training jobs: list them, show one, cancel one.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="a job's id, as `ratchet jobs list` shows it")]


@app.command("list")
def list_jobs(
    task: Annotated[str, typer.Argument(help="one task; none: all")] = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest N")] = 20,
    as_json: Json = False,
) -> None:
    """Show training jobs, the newest first."""
    import orjson

    from ratchet.schemas.rows import instant
    from ratchet.services import wiring

    with wiring.store(wiring.settings()) as store:
        rows = store.query("training_runs", task=task, since=instant(datetime(2000, 1, 1, tzinfo=UTC)), most=limit)
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    for row in rows:
        made = row["adapter"] or row["reason"] or row["dataset"]
        typer.echo(
            f"{row['job_id']}  {row['started_at']:%Y-%m-%d %H:%M} UTC  {row['task']:<16} {row['method']:<6} "
            f"{row['trigger']:<8} {row['state']:<9} {made}"
        )
    if not rows:
        typer.echo("no training job is known yet")


@app.command()
def show(job: Job, as_json: Json = False) -> None:
    """Show everything that was told of one job."""
    import orjson

    from ratchet.services import wiring
    from ratchet.services.jobs import history

    rows = history(wiring.settings(), job)
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    typer.echo(f"job {job} of task {rows[0]['task']}: {rows[0]['method']}, asked for by {rows[0]['trigger']}")
    for row in rows:
        typer.echo(f"  {row['at']:%Y-%m-%d %H:%M:%S} UTC  {_line(row)}")


def _line(row: dict[str, Any]) -> str:
    if row["state"] == "progress":
        told = ", ".join(f"{name} {value:.4g}" for name, value in sorted(row["metrics"].items()))
        return f"step {row['step']} of {row['steps']}: {told}"
    dataset = f"dataset {row['dataset']}" if row["dataset"] else ""
    return ", ".join(filter(None, (row["state"], row["adapter"], dataset, row["reason"])))


@app.command()
def cancel(
    job: Job,
    why: Annotated[str, typer.Option("--why", help="the reason, for the record")] = "",
    as_json: Json = False,
) -> None:
    """End a job, whether it runs or waits; whoever trains it obeys within seconds."""
    from ratchet.services import wiring
    from ratchet.services.jobs import cancel as ask

    asked = ask(wiring.settings(), job, getpass.getuser(), why)
    typer.echo(asked.to_bytes() if as_json else f"job {job} of task {asked.task}: {asked.reason}")

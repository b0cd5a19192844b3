"""`ratchet alerts`: what a person should look at."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def alerts(
    context: typer.Context,
    task: Annotated[str, typer.Option("--task", help="one task; without it, all of them")] = "",
    state: Annotated[str, typer.Option("--state", help="open, acknowledged or resolved; without it, every state")] = "",
    limit: Annotated[int, typer.Option(min=1, help="the newest N")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Show alerts, the newest first: what was seen and what to do."""
    if context.invoked_subcommand is not None:
        return
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


@app.command()
def sinks(as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False) -> None:
    """Show where alerts go, how many each sink took and refused, and what it fails with."""
    from ratchet.infra.sinks.outbox import read_status
    from ratchet.services import wiring

    settings = wiring.settings()
    known = {one.name: asdict(one) for one in read_status(wiring.outbox_path(settings))}
    rows = [
        {"name": name, "kind": sink.kind, "to": sink.shown, **known.get(name, {})}
        for name, sink in settings.sinks.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, default=lambda at: at.isoformat().replace("+00:00", "Z")))
        return
    for row in rows:
        counts = "{taken} taken, {refused} refused, {waiting} waiting".format(**row) if "taken" in row else "new"
        typer.echo(f"{row['name']}: {row['kind']}, {row['to']}: {counts}")
        if row.get("problem"):
            since = f" since {row['failing_since']:%Y-%m-%d %H:%M:%S} UTC" if row["failing_since"] else ""
            typer.echo(f"    {'fails' if since else 'refused last'}{since}: {row['problem']}")


@app.command("test")
def send_test(
    sink: Annotated[str, typer.Argument(help="one sink of ratchet.toml; without it, all of them")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Send a test alert now and say what each sink answered; exit status 1 where one did not take it."""
    import asyncio

    from ratchet.infra import clock
    from ratchet.infra.sinks.notice import trial
    from ratchet.infra.sinks.sink import send
    from ratchet.schemas.errors import SettingsError
    from ratchet.services import wiring

    configured = wiring.settings().sinks
    if sink and sink not in configured:
        raise SettingsError(f"sink {sink!r}; allowed: {', '.join(configured) or 'none, [sinks.<name>] declares one'}")
    rows = []
    for name, settings in configured.items():
        if sink in ("", name):
            outcome = asyncio.run(send(trial(clock.now(), clock.new_id()), settings, clock.now()))
            rows.append({"name": name, "kind": settings.kind, "to": settings.shown, **asdict(outcome)})
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        for row in rows:
            typer.echo(f"{row['name']}: {row['kind']}, {row['to']}: {row['verdict']}: {row['says']}")
    raise typer.Exit(0 if all(row["verdict"] == "taken" for row in rows) else 1)


@app.command()
def ack(
    alert_id: Annotated[str, typer.Argument(metavar="ID", help="as `ratchet alerts --json` shows it")],
    who: Annotated[str, typer.Option("--who", help="who looks after it")],
    why: Annotated[str, typer.Option("--why", help="what was found, or what is being done")],
) -> None:
    """Acknowledge an open alert: it reminds nobody any more, and speaks again if it gets worse or ends."""
    from ratchet.infra import clock
    from ratchet.schemas.errors import BrokerError, RatchetError
    from ratchet.schemas.monitoring_events import Alert
    from ratchet.services import wiring

    try:
        uuid.UUID(alert_id)
    except ValueError:
        raise RatchetError(f"alert {alert_id!r} is no id; allowed: a UUID, see `ratchet alerts --json`") from None
    if not who.strip() or not why.strip():
        raise RatchetError("--who and --why: say both; they are stored with the alert")
    settings = wiring.settings()
    with wiring.store(settings) as store:
        rows = store.query("alert", id=alert_id)
    if not rows:
        raise RatchetError(f"alert {alert_id}: there is none; see `ratchet alerts`")
    known = {name: value for name, value in rows[0].items() if value not in ("", None)}
    alert = Alert.model_validate(known | {"evidence": json.loads(rows[0]["evidence"])})
    if alert.state == "resolved":
        raise RatchetError(f"alert {alert_id} is resolved since {alert.at:%Y-%m-%d %H:%M} UTC: nothing to acknowledge")
    at = max(clock.now(), alert.at)
    said = {"who": who, "why": why, "at": at.isoformat().replace("+00:00", "Z")}
    evidence = alert.evidence | {"acknowledged": said}
    publisher = wiring.publisher(settings, "ratchet-alerts")
    try:
        publisher.publish(alert.model_copy(update={"state": "acknowledged", "at": at, "evidence": evidence}))
        if publisher.flush(30):
            raise BrokerError("the broker did not take it within 30 s; is it up? (ratchet doctor)")
    finally:
        publisher.close()
    typer.echo(f"acknowledged: {alert.title}")

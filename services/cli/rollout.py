"""`ratchet rollout`: where a rollout stands, and a person's word in it."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated, Literal

import typer

from ratchet.services.cli import rollout_plan, rollout_why

app = typer.Typer(help="Where a rollout stands, and why; start, hold, end or undo one.", no_args_is_help=True)
for command in rollout_plan.COMMANDS:
    app.command()(command)

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Why = Annotated[str, typer.Option("--why", help="the reason, for the audit log")]
Wait = Annotated[float, typer.Option("--wait", min=1, help="seconds to wait for the controller's answer")]
Task = Annotated[str, typer.Argument(help="the task's name")]
Verb = Literal["start", "retry", "promote", "pause", "resume", "abort", "undo"]
WAIT_S = 15.0

app.command()(rollout_why.why)
app.command()(rollout_why.log)


@app.command()
def start(
    adapter: Annotated[str, typer.Argument(help="a registered adapter, task@vN-sha8")],
    why: Why = "",
    wait: Wait = WAIT_S,
) -> None:
    """Roll out an adapter: shadow first, then stage by stage behind the gates."""
    from ratchet.schemas.errors import RolloutError
    from ratchet.schemas.ids import ADAPTER_NAME

    named = ADAPTER_NAME.match(adapter)
    if named is None:
        raise RolloutError(f"{adapter!r} names no adapter; allowed: <task>@v<number>-<8 hex digits>")
    _ask(named["task"], "start", why, wait, adapter=adapter)


@app.command()
def promote(
    task: Task,
    full: Annotated[bool, typer.Option("--full", help="past all remaining stages")] = False,
    why: Why = "",
    wait: Wait = WAIT_S,
) -> None:
    """Go to the next stage (or to the end) without waiting for the gates."""
    _ask(task, "promote", why, wait, full=full)


@app.command()
def pause(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Hold a rollout where it is: the split stays, nothing is decided."""
    _ask(task, "pause", why, wait)


@app.command()
def resume(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Go on with a paused rollout; its stage starts again."""
    _ask(task, "resume", why, wait)


@app.command()
def abort(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Send everything back to the stable adapter at once."""
    _ask(task, "abort", why, wait)


@app.command()
def retry(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Start the last aborted or superseded candidate again, from the first stage."""
    _ask(task, "retry", why, wait)


@app.command()
def undo(
    task: Task,
    to: Annotated[str | None, typer.Option("--to", help="an earlier adapter, or base; without it the previous")] = None,
    why: Why = "",
    wait: Wait = WAIT_S,
) -> None:
    """Serve an earlier stable adapter again, after a promotion."""
    from ratchet.schemas.errors import RolloutError
    from ratchet.schemas.ids import ADAPTER_NAME, BASE

    if to is not None and to != BASE and not ADAPTER_NAME.match(to):
        raise RolloutError(f"--to {to!r}; allowed: base, or <task>@v<number>-<8 hex digits>")
    _ask(task, "undo", why, wait, adapter=to)


@app.command()
def status(
    task: Annotated[str | None, typer.Argument(help="one task; none: all")] = None,
    live: Annotated[bool, typer.Option("--live", help="look again every two seconds, until Ctrl-C")] = False,
    as_json: Json = False,
) -> None:
    """Show stages, arms, gates and how far each is, gateways, and who waits."""
    import orjson

    from ratchet.infra.clock import now
    from ratchet.services import wiring
    from ratchet.services.cli.rollout_view import lines, picture, watch
    from ratchet.services.operator.status import Standing, standings

    terminal = sys.stdout.isatty()
    if live and (as_json or not terminal):
        raise typer.BadParameter("needs a terminal, and no --json", param_hint="--live")
    settings = wiring.settings()
    with wiring.store(settings) as store:

        def look() -> list[Standing]:
            return standings(store, settings.tasks, now(), settings.prioritises, task)

        found = look()
        if live:
            watch(found, look)
            return
    if as_json:
        typer.echo(orjson.dumps([one.as_json() for one in found], option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
    elif terminal:
        from rich.console import Console

        Console(highlight=False).print(picture(found))
    else:
        for standing in found:
            typer.echo("\n".join(lines(standing)))
        if not found:
            typer.echo("no task has had a rollout yet; requests go to the base model")


def _ask(task: str, verb: Verb, why: str, wait_s: float, adapter: str | None = None, full: bool = False) -> None:
    """Publish an instruction, wait for the controller's answer and say it; a refusal ends with status 1."""
    from ratchet.infra.clock import new_id, now
    from ratchet.schemas.errors import RolloutError
    from ratchet.schemas.rollout_events import Operator
    from ratchet.services import wiring
    from ratchet.services.cli.rollout_view import table_lines
    from ratchet.services.operator.ask import ask

    asked = Operator(
        id=new_id(), at=now(), task=task, verb=verb, adapter=adapter, full=full, who=getpass.getuser(), why=why
    )
    answer = ask(wiring.settings(), asked, wait_s)
    if answer.table is None:
        raise RolloutError(answer.silence)
    if answer.refused:
        raise RolloutError(answer.table.reason)
    typer.echo("\n".join(table_lines(answer.table)))

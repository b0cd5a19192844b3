"""`ratchet checks`: try a task's checks before they run on all traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.schemas.errors import InvalidEvent, SettingsError

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.schemas.checks import Answer

app = typer.Typer(help="Try a task's programmatic checks.", no_args_is_help=True)


@app.callback()
def checks() -> None:
    """Try a task's programmatic checks."""


@app.command("test")
def trial(
    task: Annotated[str, typer.Argument(help="a task of ratchet.toml")],
    file: Annotated[
        Path | None, typer.Option("--file", help="JSONL: inference.v1 events, or messages and text")
    ] = None,
    since: Annotated[str, typer.Option("--since", help="of stored traffic: 30m, 24h, 7d, a date or a time")] = "24h",
    most: Annotated[int, typer.Option("--most", min=1, max=100_000, help="of stored traffic, the newest")] = 2_000,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Run the task's checks over stored traffic or a file; nothing is stored, no score is published."""
    from ratchet.consumers.check_set import CheckSet
    from ratchet.services import wiring
    from ratchet.services.rules.check_trial import try_checks

    s = wiring.settings()
    if task not in s.tasks:
        raise SettingsError(f"task {task!r}; declared: {', '.join(s.tasks) or 'none'}")
    declared = s.tasks[task].checks
    if not declared:
        raise SettingsError(f"tasks.{task}.checks: none is declared; docs/checks.md has an example of each kind")
    answers = _stored(s, task, since, most) if file is None else _of_file(file, task)
    with CheckSet({task: declared}, s.config_dir) as ready:
        trials = [trial.as_json() for trial in try_checks(ready.of(task), (ready.run(task, one) for one in answers))]
    if as_json:
        typer.echo(json.dumps({"task": task, "checks": trials}))
        return
    _show(task, trials)


def _of_file(file: Path, task: str) -> Iterator[Answer]:
    from ratchet.services.rules.check_trial import read_answers

    try:
        with file.open(encoding="utf-8") as lines:
            yield from read_answers(lines, task)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidEvent(f"{file}: {error}") from None
    except InvalidEvent as error:
        raise InvalidEvent(f"{file}: {error}") from None


def _stored(s: Settings, task: str, since: str, most: int) -> Iterator[Answer]:
    from ratchet.infra import clock
    from ratchet.services import wiring
    from ratchet.services.rules.check_trial import stored_answer
    from ratchet.services.rules.since import instant

    try:
        start = instant(since, clock.now())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    with wiring.store(s) as store:
        for row in store.query("checks_traffic", task=task, since=start, most=most):
            yield stored_answer(row, task)


def _show(task: str, trials: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"checks of {task}")
    for name in ("check", "kind"):
        table.add_column(name)
    for name in ("n", "passed", "95% interval", "abstained", "not applicable"):
        table.add_column(name, justify="right")
    for one in trials:
        share = "unknown" if one["share"] is None else f"{one['share']:.1%}"
        interval = "unknown" if one["share"] is None else f"{one['low']:.1%} to {one['high']:.1%}"
        counts = (f"{one[name]:,}" for name in ("abstained", "not_applicable"))
        table.add_row(one["check"], one["kind"], f"{one['n']:,}", share, interval, *counts)
    console = Console()
    console.print(table)
    for one in trials:
        for reason in one["reasons"]:
            console.print(f"{one['check']}: {reason['n']:,} {reason['verdict']}: {reason['example']}", markup=False)

"""`ratchet drift backtest`: shifts of a stated size put into traffic, and what each rule says of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratchet.consumers.backtest import Result

SHIFTS = ["judge_score=-7%", "refusals=+5pp", "answer_length=+20%"]


def backtest(
    task: Annotated[str, typer.Option("--task", help="whose recorded hours; not with --generated")] = "",
    adapter: Annotated[str, typer.Option("--adapter", help="of one adapter; without it, of all of the task's")] = "",
    since: Annotated[str, typer.Option("--since", help="30d, 2w, a date or a time with a zone")] = "4w",
    shift: Annotated[
        list[str] | None, typer.Option("--shift", help="such as judge_score=-7%, refusals=+5pp; any number of them")
    ] = None,
    generated: Annotated[bool, typer.Option("--generated", help="generate traffic instead of reading it")] = False,
    per_hour: Annotated[int, typer.Option(min=1, help="generated: observations an hour")] = 1000,
    hour_sd: Annotated[float, typer.Option(min=0, max=50, help="generated: SD of hours, % of the mean")] = 2.0,
    phi: Annotated[float, typer.Option(min=0, max=0.95, help="generated: correlation of neighbouring hours")] = 0.5,
    days: Annotated[int, typer.Option(min=100, help="days to simulate")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="the same seed, the same figures")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Put shifts of a stated size into traffic; show each rule's false alarms a year and its delay in hours."""
    from ratchet.consumers import backtest as run
    from ratchet.consumers.rules.backtest import parse_shift
    from ratchet.consumers.rules.simulation import CV, Noise
    from ratchet.schemas.errors import SettingsError

    if generated == bool(task):
        raise SettingsError(
            f"--task {task!r} {'with' if generated else 'without'} --generated; allowed: one of the two"
        )
    try:
        shifts = [parse_shift(text, run.METRICS) for text in shift or SHIFTS]
    except ValueError as error:
        raise SettingsError(f"--{error}") from None
    if generated:
        noise = Noise(per_hour, hour_sd / 100, phi, CV)
        results = run.generated(shifts, noise, days, seed)
    else:
        results = _recorded(task, adapter, since, shifts, days, seed)
    found = list(_with_progress(results))
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in found]))
    else:
        _show(found, f"generated, {per_hour} an hour" if generated else f"{task}, recorded since {since}")


def _recorded(task: str, adapter: str, since: str, shifts: list[Any], days: int, seed: int) -> Iterator[Result]:
    from ratchet.consumers import backtest as run
    from ratchet.consumers.report import hours, length_hours
    from ratchet.infra import clock
    from ratchet.schemas.errors import SettingsError
    from ratchet.services import wiring
    from ratchet.services.rules.since import instant

    now = clock.now()
    try:
        begin = instant(since, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    settings = wiring.settings()
    # the present hour is not over
    until = now.replace(minute=0, second=0, microsecond=0)
    with wiring.store(settings) as store:
        read = {
            shift.metric: hours(store, task, adapter, shift.metric, begin, until, policy=settings.tasks.get(task))
            for shift in shifts
        }
        lengths = {
            shift.metric: length_hours(store, task, adapter, shift.metric, begin, until)
            for shift in shifts
            if shift.metric in ("answer_length", "prompt_length")
        }
    policy = settings.tasks[task].drift if task in settings.tasks else None
    try:
        yield from run.recorded(shifts, read, days, seed, policy, lengths)
    except ValueError as error:
        raise SettingsError(f"task {task!r}: {error}") from None


def _with_progress(results: Iterator[Result]) -> Iterator[Result]:
    for done, result in enumerate(results, 1):
        if sys.stderr.isatty():
            typer.echo(f"\r{done} done, {result.metric} by {result.rule}\x1b[K", nl=False, err=True)
        yield result
    if sys.stderr.isatty():
        typer.echo("\r\x1b[K", nl=False, err=True)


def _show(found: list[Result], of: str) -> None:
    from itertools import groupby

    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"drift backtest: {of}; found: within {found[0].delay.horizon} hours of the shift")
    for shift, results in groupby(found, key=lambda one: one.shift):
        rows = list(results)
        table = Table(title=f"{shift}: {rows[0].false_alarms.days:,.0f} days, {rows[0].delay.series} shifts")
        table.add_column("rule", no_wrap=True)
        for name in ("false alarms a year", "found", "median h", "90% h", "mean h"):
            table.add_column(name, justify="right", no_wrap=True)
        for one in rows:
            false, delay = one.false_alarms, one.delay
            late = f"> {delay.horizon}"
            table.add_row(
                one.rule,
                f"{false.per_year:.2f} ({false.low:.2f}–{false.high:.2f})",
                f"{delay.found:.0%}",
                late if delay.median is None else f"{delay.median:.0f}",
                late if delay.p90 is None else f"{delay.p90:.0f}",
                ("≥ " if delay.found < 1 else "") + f"{delay.mean:.1f}",
            )
        console.print(table)
    for note in sorted({one.note for one in found if one.note}):
        console.print(note)

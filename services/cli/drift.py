"""`ratchet drift`: what moved in a task's traffic, and how far the rules that say so can be trusted."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.services.cli.backtest import backtest

if TYPE_CHECKING:
    from ratchet.consumers.calibration import InForce
    from ratchet.consumers.rules.measurement import Measurement, Window

app = typer.Typer(help="What moved in a task's traffic, and how sure that is.", no_args_is_help=True)

_WHEN = "24h, 7d, 2w, a date or a time with a zone"
app.command()(backtest)


@app.command()
def report(
    task: Annotated[str, typer.Argument(help="the task's name")],
    adapter: Annotated[str, typer.Option("--adapter", help="one adapter's answers; without it, all")] = "",
    since: Annotated[str, typer.Option("--since", help=f"where the window begins: {_WHEN}")] = "24h",
    until: Annotated[str, typer.Option("--until", help="where it ends; now without it")] = "",
    baseline_since: Annotated[
        str, typer.Option("--baseline-since", help="where the baseline begins; 7 days before its end without it")
    ] = "",
    baseline_until: Annotated[
        str, typer.Option("--baseline-until", help="where it ends; where the window begins without it")
    ] = "",
    exact: Annotated[
        bool, typer.Option("--exact", help="lengths from every row instead of hourly bins, and as Evidently has them")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Say what moved from what to what between two windows of whole hours, with n, effect and p."""
    from ratchet.consumers.calibration import in_force
    from ratchet.consumers.report import measure
    from ratchet.consumers.rules.measurement import Window
    from ratchet.infra import clock
    from ratchet.schemas.policies import TaskPolicy
    from ratchet.services import wiring

    now = clock.now()
    start = _instant("--since", since, now)
    window = Window(start, _instant("--until", until, now) if until else now)
    end = _instant("--baseline-until", baseline_until, now) if baseline_until else _hour(start)
    begin = _instant("--baseline-since", baseline_since, now) if baseline_since else end - timedelta(days=7)
    settings = wiring.settings()
    with wiring.store(settings) as store:
        try:
            found = measure(
                store, task, adapter, Window(begin, end), window, policy=settings.tasks.get(task), exact=exact
            )
            word = in_force(store, task, settings.tasks.get(task) or TaskPolicy(), now)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    if as_json:
        told = _as_json(task, adapter, Window(begin, end), window, found)
        typer.echo(json.dumps(told | {"judge": _judge(word)}))
    else:
        _show(task, adapter, Window(begin, end), window, found, word)


def _instant(option: str, text: str, now: datetime) -> datetime:
    from ratchet.services.rules.since import instant

    try:
        return instant(text, now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _as_json(task: str, adapter: str, baseline: Window, window: Window, found: list[Measurement]) -> dict[str, object]:
    from dataclasses import asdict

    def span(one: Window) -> dict[str, str]:
        return {"since": one.since.isoformat(), "until": one.until.isoformat()}

    rows = [asdict(one) | {"distances": dict(one.distances)} for one in found]
    return {"task": task, "adapter": adapter, "baseline": span(baseline), "window": span(window), "metrics": rows}


def _judge(word: InForce) -> dict[str, object]:
    """The judge behind the judged figures: how far people agree with it, and whether it may gate and page."""
    return {
        "judge": word.judge or None,
        "trusted": word.standing.trusted,
        "standing": str(word.standing),
        "calibration": word.calibration.as_json() if word.calibration else None,
    }


def _show(task: str, adapter: str, baseline: Window, window: Window, found: list[Measurement], word: InForce) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{task}{f', {adapter}' if adapter else ''}: {_span(window)} beside {_span(baseline)}")
    table.add_column("metric")
    for name in ("n before", "n", "before", "now", "effect", "p"):
        table.add_column(name, justify="right")
    table.add_column("what moved most")
    for one in found:
        if one.abstains:
            effect, p, moved = "", "", f"says nothing: {one.abstains}"
        else:
            effect, p = f"{one.effect_name} {_figure(one.effect)}", f"{_figure(one.p_value)} ({one.test})"
            moved = "; ".join(f"{top.label} {top.before:.1%} → {top.now:.1%}" for top in one.top[:3])
        counts = (f"{one.n_baseline:,}", f"{one.n:,}")
        values = (f"{_figure(one.baseline)} {one.unit}" if one.baseline is not None else "", _figure(one.value))
        table.add_row(one.metric, *counts, *values, effect, p, moved)
    console = Console()
    console.print(table)
    if word.judge:
        said = word.calibration or f"{word.judge}: n = 0 labels"
        console.print(f"judge_score is by {said}; {word.standing}", highlight=False)
    console.print(
        "effect: psi over tenths of the baseline, js distance, difference in points, relative change of the mean. "
        "A small p alone is no reason to act: with many requests everything differs."
    )


def _span(one: Window) -> str:
    return f"{one.since:%Y-%m-%d %H:%M} to {one.until:%Y-%m-%d %H:%M} UTC"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"

"""`ratchet judge compare`: candidates beside production as the judge sees them."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ratchet.consumers.compared import Compared
    from ratchet.consumers.rules.win_rate import Rate


def add_to(app: typer.Typer) -> None:
    """Register the command on the `judge` application."""
    app.command("compare")(compare)


def compare(
    of: Annotated[str, typer.Argument(metavar="ROLLOUT_ID|TASK", help="a rollout, or a task with all of its rollouts")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Show wins, ties and losses of candidates against production, with length-controlled win rates.

    Of a task also how often the judge agrees with people on its preference pairs.
    """
    from dataclasses import asdict

    from ratchet.consumers.compared import compare, pair_opinions
    from ratchet.services import wiring

    rollout_id = _uuid(of)
    with wiring.store(wiring.settings()) as store:
        rollouts = compare(store, rollout_id=rollout_id) if rollout_id else compare(store, task=of)
        pairs = [] if rollout_id else pair_opinions(store, of)
    if as_json:
        typer.echo(json.dumps({"rollouts": [asdict(one) for one in rollouts], "pairs": [asdict(one) for one in pairs]}))
        return
    if not rollouts and not pairs:
        typer.echo(f"no comparison of {of} was judged yet")
        return
    for one in rollouts:
        _say(f"{one.candidate} against production, rollout {one.rollout_id}", one)
    for one in pairs:
        _say(f"pairs of {of}: what people chose against what they rejected", one)


def _say(title: str, one: Compared) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "wins", "ties", "losses", "win rate", "95% interval", "n", title=title)
    table.add_row("all", str(one.wins), str(one.ties), str(one.losses), *_rate(one.win_rate))
    if one.length_controlled is not None:
        table.add_row("at equal length", "", "", "", *_rate(one.length_controlled))
    for some in one.by_length:
        side = {"same": "the same length"}.get(some.candidate, some.candidate)
        table.add_row(side, str(some.wins), str(some.ties), str(some.losses), *_rate(some.win_rate))
    console = Console()
    console.print(table)
    said = (
        f"judge {one.judge}, rubric {one.rubric}; {one.abstained} abstained, {one.flagged} with instruction-like text"
    )
    if one.mirrored:
        said += f"; of {one.mirrored} mirrored requests {one.candidate_failed} failed at the candidate,"
        said += f" {one.production_failed} in production, {one.production_unknown} have no production answer stored"
    if one.length_controlled is not None and one.length_controlled.extrapolated:
        said += "; the candidate's answer is always on one side in length, so equal length is extrapolated"
    console.print(said)


def _rate(rate: Rate) -> tuple[str, str, str]:
    shown = "-" if rate.rate is None else f"{rate.rate:.1%}"
    return shown, f"{rate.low:.1%} to {rate.high:.1%}", f"{rate.n:.0f}"


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""

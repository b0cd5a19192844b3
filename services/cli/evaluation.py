"""`ratchet evaluate`: an adapter on held-out prompts and pairs, and the matrix of base, stable and candidate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
_SIDES = ("base", "stable", "candidate")
_STYLES = {"pass": "green", "fail": "red", "error": "red", "inconclusive": "yellow"}


def evaluate(
    of: Annotated[
        str | None, typer.Argument(metavar="ADAPTER|TASK", help="an adapter; with --matrix also a task")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="measure the base model without an adapter")] = False,
    task: Annotated[str | None, typer.Option(help="needed with --base where several tasks are declared")] = None,
    dataset: Annotated[str | None, typer.Option(help="measure preference accuracy on this version's holdout")] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="base, stable and candidate on the same rows")] = False,
    stored: Annotated[bool, typer.Option("--stored", help="the matrix of its training, without measuring")] = False,
    picture: Annotated[Path | None, typer.Option(help="draw the matrix into this file (.svg or .png)")] = None,
    as_json: Json = False,
) -> None:
    """Measure an adapter, or the base model, on held-out prompts and held-out pairs."""
    from ratchet.services.evaluating import evaluate_now

    if matrix or stored or picture is not None:
        if of is None or base or dataset is not None:
            raise typer.BadParameter("a matrix is of an adapter or a task alone", param_hint="--matrix")
        _matrix(of, stored, picture, as_json)
        return
    if (of is None) == (not base):
        raise typer.BadParameter("name an adapter, or give --base", param_hint="ADAPTER")
    result = evaluate_now(wiring.settings(), of, task, dataset)
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"{result['model']} on task {result['task']}")
    for name in ("completion", "preference_accuracy"):
        if result[name] is not None:
            typer.echo(f"  {name.replace('_', ' ')}: {figures(result[name])}")
    for note in result["notes"]:
        typer.echo(f"  not measured: {note}")


def _matrix(of: str, stored: bool, picture: Path | None, as_json: bool) -> None:
    from ratchet.services.evaluating import matrix_now, matrix_stored

    if picture is not None and picture.suffix not in (".svg", ".png"):
        raise typer.BadParameter(f"{picture}; allowed: a file ending in .svg or .png", param_hint="--picture")
    settings = wiring.settings()
    result = matrix_stored(settings, of) if stored else matrix_now(settings, of)
    if picture is not None:
        from ratchet.services.matrix_picture import draw

        draw(picture, result)
    if as_json:
        typer.echo(json.dumps(result))
        return
    show(result["matrix"], result["gates"])
    if result["rejected"]:
        typer.echo(f"{result['adapter']} has no pass: {result['rejected']}")
    if picture is not None:
        typer.echo(f"drawn: {picture}")


def show(matrix: dict[str, Any], gates: list[dict[str, Any]]) -> None:
    """Print a matrix and its gates."""
    from rich.console import Console

    console = Console()
    console.print(_table(matrix, {gate["metric"]: gate for gate in gates}))
    for gate in gates:
        held = "" if gate["critical"] else " (not critical)"
        console.print(f"  {gate['metric']}: [{_STYLES[gate['verdict']]}]{gate['verdict']}[/]{held}: ", end="")
        console.print(gate["reason"], markup=False, highlight=False)
    for metric, row in matrix["metrics"].items():
        for side, error in row["errors"].items():
            console.print(f"  {metric}, {side}: {error}", markup=False, highlight=False)
    if judge := matrix.get("judge"):
        standing = f"advisory: {judge['advisory']}" if judge["advisory"] else "trusted"
        console.print(f"  win rate by {judge['id']}, {standing}", markup=False, highlight=False)
    for note in matrix.get("notes", []):
        console.print(f"  not measured: {note}", markup=False, highlight=False)


def _table(matrix: dict[str, Any], gates: dict[str, dict[str, Any]]) -> Table:
    from rich.table import Table

    sides = [side for side in _SIDES if side in matrix["models"]]
    heads = [f"{side}\n{matrix['models'][side]}" for side in sides]
    table = Table("metric", *heads, f"candidate less {matrix['against']}", "n", "gate")
    for metric, row in matrix["metrics"].items():
        gap, gate = row.get("difference"), gates.get(metric)
        cells = [_cell(row["kind"], row.get(side)) for side in sides]
        verdict = f"[{_STYLES[gate['verdict']]}]{gate['verdict']}[/]" if gate else ""
        n = str((gap or row.get("candidate") or {"n": 0})["n"])
        table.add_row(metric, *cells, _cell(row["kind"], gap, sign="+"), n, verdict)
    return table


def _cell(kind: str, figure: dict[str, Any] | None, sign: str = "") -> str:
    if figure is None or figure["value"] is None:
        return "-"
    form = f"{sign}.1%" if kind == "rate" else f"{sign}.4g"
    value, low, high = (format(figure[name], form) for name in ("value", "low", "high"))
    left = f"\n{figure['missing']} without" if figure.get("missing") else ""
    return f"{value}\n{low} to {high}{left}"


def figures(value: Any) -> str:
    """A rate with its interval, or several by name, in one line."""
    if isinstance(value, dict) and "rate" in value:
        interval = f"95% interval {value['low']:.1%} to {value['high']:.1%}"
        rate = "unknown" if value["rate"] is None else f"{value['rate']:.1%}"
        left = f", {value['unjudged']} without a verdict" if value.get("unjudged") else ""
        return f"{value['k']} of {value['n']} = {rate} ({interval}){left}"
    if isinstance(value, dict):
        return "; ".join(f"{name} {figures(part)}" for name, part in value.items())
    return str(value)

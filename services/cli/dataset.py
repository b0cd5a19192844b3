"""`ratchet dataset`: versioned training data, of stored feedback or of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ratchet.services import wiring
from ratchet.services.cli.augment import augment, mix, review

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Version = Annotated[str, typer.Argument(help="dataset version, or the beginning of it")]
Holdout = Annotated[
    float | None,
    typer.Option(min=0, max=0.9, help="share of conversations to hold out, instead of the policy's"),
]
FORMATS = "instruction, messages, turns, prompt-completion, unpaired, preference"

app = typer.Typer(no_args_is_help=True, help="Versioned training data.")
for _command in (augment, review, mix):
    app.command()(_command)


@app.command()
def build(
    task: str,
    kind: Annotated[str, typer.Option(help="preference, sft, kto")] = "preference",
    holdout: Holdout = None,
    cap: Annotated[
        int | None, typer.Option("--max-pairs-per-user", min=1, help="guard against brigading, for sft and kto too")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a dataset version of all feedback that is stored; the same data gives the same version."""
    from ratchet.services.datasets import build_dataset
    from ratchet.trainers.rules.dataset import KINDS

    wanted = next((one for one in KINDS if one == kind), None)
    if wanted is None:
        raise typer.BadParameter(f"{kind!r}; allowed: {', '.join(KINDS)}", param_hint="--kind")
    settings = wiring.settings()
    with wiring.store(settings) as store:
        built = build_dataset(settings, store, task, wanted, holdout, cap)
    tell(built.manifest | {"path": str(built.folder)}, as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help=".jsonl or .parquet")],
    format_: Annotated[str, typer.Option("--format", help=FORMATS)],
    task: Annotated[str | None, typer.Option(help="whose training data it becomes")] = None,
    into: Annotated[str | None, typer.Option(help="the version to add to; its task is the task")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="a field of the file to leave out; may be repeated")] = None,
    holdout: Holdout = None,
    as_json: Json = False,
) -> None:
    """Make a dataset version of a file of training data, or add it to a version."""
    from ratchet.services.datasets import import_dataset
    from ratchet.trainers import dataset as datasets

    _known_format(format_, FORMATS)
    settings = wiring.settings()
    parent = datasets.find(settings.home, into) if into else None
    wanted = task or (parent.task if parent else None)
    if wanted is None:
        raise typer.BadParameter("allowed: --task, or --into with a version of it", param_hint="--task")
    with wiring.store(settings) as store:
        made, bad = import_dataset(
            settings, store, wanted, file, format_, into=parent, holdout=holdout, ignore=frozenset(ignore or ())
        )
    if not as_json:
        for number, reason in bad:
            typer.echo(f"  left out: {number}: {reason}")
    tell(made.manifest | {"path": str(made.folder)}, as_json)


@app.command()
def show(version: Version, as_json: Json = False) -> None:
    """Show what a dataset version was made from, and what each filter left out."""
    from ratchet.trainers import dataset as datasets

    found = datasets.find(wiring.settings().home, version)
    tell(found.manifest | {"path": str(found.folder)}, as_json)


@app.command("list")
def list_versions(task: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """List the dataset versions on this machine, oldest first."""
    from ratchet.trainers import dataset as datasets

    found = [one.manifest for one in datasets.versions(wiring.settings().home, task)]
    if as_json:
        typer.echo(json.dumps(found))
    for one in [] if as_json else found:
        built, gone = one["built"], "  erased" if "erased" in one else ""
        counts = f"{built['train']} + {built['holdout']}"
        typer.echo(f"{one['version']}  {one['task']}  {one['kind']}  {counts}  {one['created_at']}{gone}")


@app.command()
def export(
    version: Version,
    out: Annotated[Path, typer.Option(help="the file to write, .jsonl or .parquet")],
    format_: Annotated[str, typer.Option("--format", help=f"rows (as stored), {FORMATS}")] = "rows",
    side: Annotated[str, typer.Option(help="train, holdout")] = "train",
) -> None:
    """Write one side of a dataset version to a file; a format that would lose something is refused."""
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.files import write_file

    _known_format(format_, f"rows, {FORMATS}")
    if side not in datasets.SIDES:
        raise typer.BadParameter(f"{side!r}; allowed: {', '.join(datasets.SIDES)}", param_hint="--side")
    found = datasets.find(wiring.settings().home, version)
    rows = found.rows(side)
    write_file(out, format_, found.kind, rows)
    typer.echo(f"{len(rows)} rows written to {out}")


@app.command()
def diff(before: Version, after: Version, as_json: Json = False) -> None:
    """Show which rows one version has and another has not."""
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.rules.dataset import difference

    home = wiring.settings().home
    old, new = datasets.find(home, before), datasets.find(home, after)
    result: dict[str, Any] = {"before": old.version, "after": new.version}
    for side in datasets.SIDES:
        added, removed, changed = difference(old.rows(side), new.rows(side))
        result[side] = {"added": added, "removed": removed, "changed": changed}
    if as_json:
        typer.echo(json.dumps(result))
        return
    for side in datasets.SIDES:
        typer.echo(f"{side}: " + ", ".join(f"{len(pairs)} {what}" for what, pairs in result[side].items()))
        for sign, what in (("+", "added"), ("-", "removed"), ("~", "changed")):
            for pair in result[side][what]:
                typer.echo(f"  {sign} {pair}")


def _known_format(name: str, allowed: str) -> None:
    if name not in allowed.replace(" (as stored)", "").split(", "):
        raise typer.BadParameter(f"{name!r}; allowed: {allowed}", param_hint="--format")


def tell(manifest: dict[str, Any], as_json: bool) -> None:
    """Show a version's manifest."""
    if as_json:
        typer.echo(json.dumps(manifest))
        return
    built, talks = manifest["built"], manifest["conversations"]
    rows = "pairs" if manifest["kind"] == "preference" else f"{manifest['kind']} examples"
    typer.echo(f"dataset {manifest['version']} of task {manifest['task']}: {manifest['path']}")
    for side in ("train", "holdout"):
        typer.echo(f"  {side}: {built[side]} {rows} of {talks[side]} conversations")
    for what in ("sources", "dropped", "conflicts"):
        counts = ", ".join(f"{name} {n}" for name, n in manifest.get(what, {}).items() if n)
        typer.echo(f"  {what}: {counts or 'none'}")
    for step in manifest.get("steps", []):
        typer.echo(f"    {step['filter']}: {step['before']} -> {step['after']}")
    change = f" ({manifest['change']})" if "change" in manifest else ""
    typer.echo(f"  parent: {manifest['parent'] or 'none'}{change}; sha256 {manifest['sha256']}")
    if "erased" in manifest:
        gone = manifest["erased"]
        typer.echo(f"  erased at {gone['at']}: {gone['reason']}; the rest: {gone['replaced_by'] or 'nothing'}")

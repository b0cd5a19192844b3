"""Commands that turn stored feedback into training data: import, dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store
    from ratchet.infra.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Version = Annotated[str, typer.Argument(help="dataset version, or the beginning of it")]

imports = typer.Typer(no_args_is_help=True, help="Turn logs of other systems into events.")
dataset = typer.Typer(no_args_is_help=True, help="Versioned training data.")
APPS: tuple[tuple[str, typer.Typer], ...] = (("import", imports), ("dataset", dataset))


@imports.callback()
def _imports() -> None:
    """Turn logs of other systems into events."""  # a callback keeps `import jsonl` a sub-command while it is alone


@imports.command("jsonl")
def import_jsonl(
    file: Annotated[Path, typer.Argument(help="a JSON array, a JSON document that holds one, or JSONL")],
    map_file: Annotated[Path, typer.Option("--map", help="the map, TOML; examples/pandalm.toml is one")],
    dry_run: Annotated[bool, typer.Option(help="check every record and publish nothing")] = False,
    wait: Annotated[bool, typer.Option(help="wait until ClickHouse has every event")] = False,
    as_json: Json = False,
) -> None:
    """Import any JSON or JSONL log by a map; importing it again adds nothing."""
    from ratchet.infra.kafka.admin import wait_for_broker
    from ratchet.services.importing import jsonl
    from ratchet.services.importing.records import load_map

    mapping = load_map(map_file)
    report = jsonl.check(file, mapping)
    if not dry_run:
        settings = wiring.settings()
        wait_for_broker(settings.kafka, 10)
        publisher = wiring.publisher(settings, "ratchet-import")
        try:
            jsonl.publish(file, mapping, report, publisher)
        finally:
            publisher.close()
        if wait:
            with _store(settings) as store:
                jsonl.wait_stored(file, mapping, report, store)
    if as_json:
        typer.echo(json.dumps(report.as_json() | {"task": mapping.task, "dry_run": dry_run}))
        return
    made = ", ".join(f"{n} {name}" for name, n in report.events.items())
    typer.echo(f"{report.records} records of {file} become {made} for task {mapping.task}")
    for problem in report.examples:
        typer.echo(f"  left out: {problem}")
    if report.bad > len(report.examples):
        typer.echo(f"  … and {report.bad - len(report.examples)} more")
    typer.echo("nothing published (--dry-run)" if dry_run else f"{report.published} events delivered to Kafka")
    if report.stored is not None:
        typer.echo(f"{report.stored} events are in ClickHouse")


@dataset.command()
def build(
    task: str,
    kind: Annotated[str, typer.Option(help="preference")] = "preference",
    holdout: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="share of conversations to hold out; pairs are derived anew")
    ] = None,
    cap: Annotated[int | None, typer.Option("--max-pairs-per-user", min=1, help="guard against brigading")] = None,
    as_json: Json = False,
) -> None:
    """Make a dataset version of all feedback that is stored; the same data gives the same version."""
    from ratchet.services.learning import build_dataset

    if kind != "preference":
        raise typer.BadParameter(f"{kind!r}; allowed: preference", param_hint="--kind")
    settings = wiring.settings()
    with _store(settings) as store:
        built = build_dataset(settings, store, task, holdout, cap)
    _tell(built.manifest | {"path": str(built.folder)}, as_json)


@dataset.command()
def show(version: Version, as_json: Json = False) -> None:
    """Show what a dataset version was made from."""
    from ratchet.trainers import dataset as datasets

    found = datasets.find(wiring.settings().home, version)
    _tell(found.manifest | {"path": str(found.folder)}, as_json)


@dataset.command("list")
def list_versions(task: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """List the dataset versions on this machine, oldest first."""
    from ratchet.trainers import dataset as datasets

    found = [one.manifest for one in datasets.versions(wiring.settings().home, task)]
    if as_json:
        typer.echo(json.dumps(found))
    for one in [] if as_json else found:
        built = one["built"]
        typer.echo(f"{one['version']}  {one['task']}  {built['train']} + {built['holdout']}  {one['created_at']}")


@dataset.command()
def export(
    version: Version,
    out: Annotated[Path, typer.Option(help="the file to write")],
    format_: Annotated[str, typer.Option("--format", help="jsonl")] = "jsonl",
    side: Annotated[str, typer.Option(help="train, holdout")] = "train",
) -> None:
    """Write one side of a dataset version to a file, as TRL reads preference data."""
    from ratchet.schemas.errors import DatasetError
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.rules.dataset import lines

    if format_ != "jsonl":
        raise typer.BadParameter(f"{format_!r}; allowed: jsonl", param_hint="--format")
    if side not in datasets.SIDES:
        raise typer.BadParameter(f"{side!r}; allowed: {', '.join(datasets.SIDES)}", param_hint="--side")
    rows = datasets.find(wiring.settings().home, version).rows(side)
    try:
        out.write_bytes(lines(rows))
    except OSError as error:
        raise DatasetError(f"{out}: {error.strerror}") from None
    typer.echo(f"{len(rows)} rows written to {out}")


@dataset.command()
def diff(before: Version, after: Version, as_json: Json = False) -> None:
    """Show which pairs one version has and another has not."""
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


@contextmanager
def _store(settings: Settings) -> Iterator[Store]:
    store = wiring.store(settings)
    try:
        yield store
    finally:
        store.close()


def _tell(manifest: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(manifest))
        return
    built, talks = manifest["built"], manifest["conversations"]
    typer.echo(f"dataset {manifest['version']} of task {manifest['task']}: {manifest['path']}")
    for side in ("train", "holdout"):
        typer.echo(f"  {side}: {built[side]} pairs of {talks[side]} conversations")
    for what in ("sources", "dropped", "conflicts"):
        counts = ", ".join(f"{name} {n}" for name, n in manifest[what].items() if n)
        typer.echo(f"  {what}: {counts or 'none'}")
    typer.echo(f"  parent: {manifest['parent'] or 'none'}; sha256 {manifest['sha256']}")

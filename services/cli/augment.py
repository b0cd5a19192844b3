"""`ratchet dataset augment`, `review` and `mix`: rows that an LLM wrote, after a person saw them."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from ratchet.trainers.augmenting import Batch, Status

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
ALL = "all"


def augment(
    version: Annotated[str, typer.Argument(help="dataset version, or the beginning of it")],
    by: Annotated[str, typer.Option(help="who writes: a name under [judges]")],
    way: Annotated[str, typer.Option(help="paraphrase, example, adversarial")] = "paraphrase",
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="rows wanted")] = 50,
    as_json: Json = False,
) -> None:
    """Have an LLM propose new training rows; they stay apart until `ratchet dataset review`."""
    from ratchet.infra import clock
    from ratchet.schemas.errors import SettingsError
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.augmenting import propose
    from ratchet.trainers.rules.augmenting import WAYS

    wanted = next((one for one in WAYS if one == way), None)
    if wanted is None:
        raise typer.BadParameter(f"{way!r}; allowed: {', '.join(WAYS)}", param_hint="--way")
    settings = wiring.settings()
    clients = wiring.judges(settings)
    if by not in clients:
        raise SettingsError(f"--by {by!r}; allowed: {', '.join(sorted(clients))}")

    def tell(done: int) -> None:
        if sys.stderr.isatty():
            typer.echo(f"\r{done} of {n} replies\x1b[K", nl=done == n, err=True)

    found = datasets.find(settings.home, version)
    batch, failed = asyncio.run(propose(settings.home, found, wanted, n, clients[by], clock.now(), tell))
    if as_json:
        typer.echo(json.dumps({"batch": batch.name, "proposed": len(batch.proposals), "failed": failed}))
        return
    for reason in failed[:5]:
        typer.echo(f"  no row: {reason}")
    typer.echo(f"batch {batch.name}: {len(batch.proposals)} proposed, {len(failed)} replies came to nothing")
    typer.echo(f"  {batch.file}; look at them: ratchet dataset review {batch.name}")


def review(
    batch: Annotated[str, typer.Argument(help="a batch, or the beginning of its name")],
    accept: Annotated[list[str] | None, typer.Option(help="a row's id, or all; may be repeated")] = None,
    reject: Annotated[list[str] | None, typer.Option(help="a row's id, or all; may be repeated")] = None,
    as_json: Json = False,
) -> None:
    """Go through a batch's proposals one by one, or say which are accepted; only those can be mixed in."""
    from ratchet.infra import clock
    from ratchet.trainers.augmenting import find_batch
    from ratchet.trainers.augmenting import review as note

    found = find_batch(wiring.settings().home, batch)
    verdicts: dict[str, Status] = {}
    named: list[tuple[list[str], Status]] = [(accept or [], "accepted"), (reject or [], "rejected")]
    for names, status in named:
        for name in names:
            verdicts |= dict.fromkeys(found.proposals if name == ALL else [name], status)
    if not verdicts and not as_json:
        verdicts = _ask(found)
    if verdicts:
        found = note(found, verdicts, getpass.getuser(), clock.now())
    counts = {status: len(found.rows(status)) for status in ("proposed", "accepted", "rejected")}
    if as_json:
        typer.echo(json.dumps({"batch": found.name, "task": found.task, "kind": found.kind} | counts
                              | {"proposals": list(found.proposals.values())}))  # fmt: skip
        return
    typer.echo(f"batch {found.name}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))


def _ask(batch: Batch) -> dict[str, Status]:
    """Show each open proposal and ask; q leaves the rest open."""
    verdicts: dict[str, Status] = {}
    words: dict[str, Status] = {"a": "accepted", "r": "rejected"}
    for id, one in batch.proposals.items():
        if one["status"] != "proposed":
            continue
        row = one["row"]
        typer.echo(f"\n{id} ({row['source']}, from {row['made_from']})")
        for message in row["prompt"]:
            typer.echo(f"  {message['role']}: {message['content']}")
        for name in ("chosen", "rejected", "completion"):
            if name in row:
                typer.echo(f"  {name}: {row[name][0]['content']}")
        said = typer.prompt("(a)ccept, (r)eject, (s)kip, (q)uit", default="s")[:1].lower()
        if said == "q":
            break
        if said in words:
            verdicts[id] = words[said]
    return verdicts


def mix(
    version: Annotated[str, typer.Argument(help="dataset version, or the beginning of it")],
    batch: Annotated[list[str], typer.Option("--batch", help="reviewed proposals; may be repeated")],
    share: Annotated[float, typer.Option(min=0, max=0.3, help="the most of the rows that may be synthetic")] = 0.3,
    as_json: Json = False,
) -> None:
    """Make a version with accepted rows among its training rows, at most 30% of them, marked for ever."""
    from ratchet.services.cli.dataset import tell
    from ratchet.services.datasets import mix_dataset
    from ratchet.trainers import dataset as datasets
    from ratchet.trainers.augmenting import find_batch

    settings = wiring.settings()
    parent = datasets.find(settings.home, version)
    with wiring.store(settings) as store:
        made = mix_dataset(settings, store, parent, [find_batch(settings.home, name) for name in batch], share)
    tell(made.manifest | {"path": str(made.folder)}, as_json)

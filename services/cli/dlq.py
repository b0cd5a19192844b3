"""`ratchet dlq`: messages that were no events, with their bytes and the reason; look at them, send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ratchet.schemas.events import DeadLetter

SHOWN = 120
"""Bytes of a message that the list shows to a person."""

app = typer.Typer(help="Messages that were no events: list them, send them again.", no_args_is_help=True)


@app.command("list")
def list_letters(
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON array")] = False,
    limit: Annotated[int, typer.Option(min=1, help="the newest N")] = 50,
) -> None:
    """Show dead letters, the newest last."""
    import orjson

    from ratchet.infra.kafka.dead import read_dead_letters
    from ratchet.services import wiring

    letters = read_dead_letters(wiring.settings().kafka)
    shown = letters[-limit:]
    if as_json:
        typer.echo(orjson.dumps([_row(letter) for letter in shown], option=orjson.OPT_INDENT_2))
        return
    for letter in shown:
        row = _row(letter)
        typer.echo(f"{letter.id}  {row['at']}  {letter.topic}[{letter.partition}] offset {letter.offset}")
        typer.echo(f"    {letter.reason}")
        typer.echo(f"    key {letter.key!r}, {row['bytes']} bytes: {_beginning(letter)}")
    earlier = len(letters) - len(shown)
    typer.echo(f"{len(letters)} dead letters" + (f", {earlier} earlier ones not shown" if earlier else ""))


@app.command()
def replay(
    ids: Annotated[list[str] | None, typer.Option("--id", help="a dead letter's id, as often as needed")] = None,
    everything: Annotated[bool, typer.Option("--all", help="all of them")] = False,
) -> None:
    """Publish dead letters' bytes again to their topics, with their keys."""
    from ratchet.infra.kafka import dead
    from ratchet.services import wiring

    if bool(ids) == everything:
        raise typer.BadParameter("say which: --id ID (as often as needed), or --all")
    settings = wiring.settings()
    letters = dead.read_dead_letters(settings.kafka)
    wanted = set(ids or [])
    if unknown := wanted - {letter.id for letter in letters}:
        raise typer.BadParameter(f"no dead letter has the id {', '.join(sorted(unknown))}")
    chosen = letters if everything else [letter for letter in letters if letter.id in wanted]
    publisher = wiring.publisher(settings, "ratchet-dlq")
    try:
        sent = dead.replay(chosen, publisher)
    finally:
        publisher.close()
    typer.echo(f"{sent} messages published again")


def _beginning(letter: DeadLetter) -> str:
    from ratchet.infra.kafka.dead import original

    raw = original(letter)
    return f"{raw[:SHOWN]!r}" + (" … (whole with --json)" if len(raw) > SHOWN else "")


def _row(letter: DeadLetter) -> dict[str, Any]:
    from ratchet.infra.kafka.dead import original

    raw = original(letter)
    try:
        text: str | None = raw.decode()
    except UnicodeDecodeError:
        text = None
    return {
        "id": letter.id,
        "at": letter.at.isoformat().replace("+00:00", "Z"),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": letter.key,
        "reason": letter.reason,
        "bytes": len(raw),
        "text": text,
        "value_base64": letter.value_base64,
    }

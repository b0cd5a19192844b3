"""`ratchet keys`: who may use the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.schemas.keys import DEFAULT_TENANT, SCOPES

if TYPE_CHECKING:
    from ratchet.schemas.keys import Key

app = typer.Typer(help="API keys of the gateway: make one, list them, revoke one.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="who uses it, for people")],
    scope: Annotated[list[str], typer.Option(help=f"as often as needed: {', '.join(SCOPES)}")],
    tenant: Annotated[str, typer.Option(help="whose traffic it speaks for")] = DEFAULT_TENANT,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="its limit; none: no limit")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: the only time that it is shown.

    With the first key the gateway closes to requests without one, and may listen beyond loopback.
    """
    import orjson

    from ratchet.infra import clock
    from ratchet.services import wiring

    scopes = [known for known in SCOPES if known in scope]
    if wrong := sorted(set(scope) - set(SCOPES)):
        raise typer.BadParameter(f"--scope {wrong[0]!r}; allowed: {', '.join(SCOPES)}")
    file = wiring.key_file(wiring.settings())
    key, secret = file.create(name, tenant, scopes, clock.now(), requests_per_minute)
    if as_json:
        typer.echo(orjson.dumps(_row(key) | {"key": secret}, option=orjson.OPT_INDENT_2))
        return
    typer.echo(secret)
    # Apart from the secret, so that KEY=$(ratchet keys create …) takes that alone.
    typer.echo(f"key {key.id}: {name}, tenant {tenant}: {', '.join(scopes)}; it is not shown again", err=True)
    typer.echo(f"gateways that read {file.path} know it within a second", err=True)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """Show every key, never its secret; revoked ones too."""
    import orjson

    from ratchet.services import wiring

    keys = wiring.key_file(wiring.settings()).read()
    if as_json:
        typer.echo(orjson.dumps([_row(key) for key in keys], option=orjson.OPT_INDENT_2))
        return
    for key in keys:
        limit = f"{key.requests_per_minute}/min" if key.requests_per_minute else "no limit"
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC" if key.revoked_at else "in use"
        scopes = ",".join(key.scopes)
        typer.echo(f"{key.id}  {key.name:<20} {key.tenant:<16} {scopes:<28} {limit:<12} {state}")
    if not keys:
        typer.echo("no key was ever created: the gateway is open, on loopback only")


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="a key's id, as `ratchet keys list` shows it")]) -> None:
    """Take a key out of use for ever; gateways refuse it within about a second."""
    from ratchet.infra import clock
    from ratchet.services import wiring

    key = wiring.key_file(wiring.settings()).revoke(id, clock.now())
    typer.echo(f"key {key.id} ({key.name}) is revoked")


def _row(key: Key) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"sha256"})

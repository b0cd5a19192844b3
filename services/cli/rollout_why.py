"""`ratchet rollout why` and `log`: what was in force when, and by whose decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ratchet.schemas.rollout_events import Rollout
    from ratchet.services.operator.why import Account

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Task = Annotated[str, typer.Argument(help="the task's name")]


def why(
    task: Task,
    at: Annotated[
        str, typer.Option("--at", help="when: '2h ago', a date, or RFC 3339 with a zone; now without it")
    ] = "",
    as_json: Json = False,
) -> None:
    """Say why an adapter serves, or served: the table in force, who decided it on what evidence, and all before it."""
    import orjson

    from ratchet.infra import clock
    from ratchet.services import wiring
    from ratchet.services.operator.why import account
    from ratchet.services.rules.since import instant

    now = clock.now()
    try:
        when = instant(at, now) if at else now
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--at") from None
    with wiring.store(wiring.settings()) as store:
        found = account(store, task, when, now)
    if as_json:
        typer.echo(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
    else:
        typer.echo("\n".join(lines(found)))


def log(
    task: Task, limit: Annotated[int, typer.Option(min=1, help="the newest N")] = 50, as_json: Json = False
) -> None:
    """List a task's decisions, the latest first: what, by whom, and why."""
    import orjson

    from ratchet.infra import clock
    from ratchet.services import wiring
    from ratchet.services.operator.why import transitions

    with wiring.store(wiring.settings()) as store:
        found = transitions(store, task, clock.now(), limit)
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    for one in found:
        typer.echo(f"{_row(one)}")


def lines(found: Account) -> list[str]:
    """An account in words."""
    from ratchet.services.cli.rollout_view import at

    if found.why is None:
        return [f"{found.task} at {at(found.at)}: no table was in force yet; every request went to the base model"]
    why = found.why
    table = why.table
    said = [f"{table.task} at {at(found.at)}: version {table.version}, {table.status}"]
    said += [f"  {name} gets {share:.4g}% of users" for name, share in _percent(why.shares)]
    if table.mirror_bp and table.candidate:
        copied = ", ".join(table.arms) or table.candidate
        said.append(f"  {copied}: copies of {table.mirror_bp / 100:g}% of requests, which nobody sees")
    said += ["because of", *_told(why.decided)]
    if table.version != why.decided.version:
        said.append(f"  and since then: {table.action} by {table.actor} at {at(table.at)}: {table.reason}")
    said += _gateways(found)
    if earlier := [one for one in why.rollout if one.version != why.decided.version]:
        said += [f"the rollout of {table.candidate}, the latest first", *_all(earlier)]
    if why.became_stable:
        said += [f"how {table.stable} became stable, the latest first", *_all(why.became_stable)]
    else:
        said.append(f"{table.stable} is stable because no adapter was promoted before")
    for name, made in found.adapters.items():
        said.append(f"{name}: {made.method} on {made.base_model} from dataset {made.dataset}, job {made.job_id}")
    return said


def _percent(shares: dict[str, float]) -> list[tuple[str, float]]:
    return [(name, share * 100) for name, share in shares.items()]


def _all(tables: list[Rollout]) -> list[str]:
    return [line for table in tables for line in _told(table)]


def _told(table: Rollout) -> list[str]:
    said = [f"  {_row(table.model_dump(mode='json'))}"]
    return said + [f"      {gate.verdict:<12} {gate.reason}" for gate in table.gates]


def _row(one: dict[str, Any]) -> str:
    stage = f" {one['stage']}" if one["stage"] else ""
    who = f"{one['action']}{stage} by {one['actor']}"
    return f"{str(one['at'])[:19]}Z  v{one['version']}  {who}: {one['reason']}"


def _gateways(found: Account) -> list[str]:
    assert found.why is not None
    if found.gateways is None:
        return ["what gateways had acknowledged is not kept for so long"]
    if not found.gateways:
        return ["no gateway had said anything within an hour"]
    from ratchet.services.cli.rollout_view import at

    said = []
    for one in found.gateways:
        follows = f"followed it since {at(one.since)}" if one.acknowledged else f"had version {one.version or 'none'}"
        said.append(f"  gateway {one.gateway} {follows}" + (", and was out of reach" if one.silent else ""))
    return said
